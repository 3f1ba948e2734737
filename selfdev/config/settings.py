"""The settings of a run as frozen models: what each means, its unit and its place in the paper.

A description says which row of PAPER.md a default comes from, with the row's grade, or that it is not known.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from selfdev.config.learning import Dpo as Dpo
from selfdev.config.learning import Pairs as Pairs
from selfdev.config.task import Section as Section
from selfdev.config.task import Task as Task
from selfdev.config.task import TaskBesides as TaskBesides
from selfdev.errors import SelfdevError
from selfdev.records import MOST_GIB, MOST_SECONDS

Device = Literal["auto", "cpu", "cuda"]
ControlName = Literal[
    "untrained", "prompted", "generator",
    "cma task_arithmetic", "cma task_arithmetic by layer", "cma ties", "cma ties by layer",
    "random task_arithmetic", "random task_arithmetic by layer", "random ties", "random ties by layer",
]  # fmt: skip
_LAB_MODEL = re.compile(r"lab:([a-z]\w*)/(\w+)")


class Models(Section):
    """The seed, its experts, and what a program is shown of them."""

    seed: str = Field(description="Model to improve: lab:FAMILY/NAME (built in), a folder or a hub id.")
    experts: dict[str, str] = Field(
        min_length=1, description="Fine-tuned relatives of the seed, name -> model; programs see this order."
    )
    scope: str = Field(
        default="mlp",
        description="Parameters shown to programs: mlp, all or a regular expression; others stay the seed's."
        " PAPER.md: what a program does, MLP layers (B2).",
    )
    show_dtype: Literal["stored", "float32"] = Field(
        default="stored", description="Dtype in which programs see tensors. PAPER.md: dtype, not known."
    )

    @field_validator("seed")
    @classmethod
    def _seed_is_named_right(cls, value: str) -> str:
        return _checked_model(value)

    @field_validator("experts")
    @classmethod
    def _experts_are_named_right(cls, value: dict[str, str]) -> dict[str, str]:
        for name, model in value.items():
            if name == "seed" or not re.fullmatch(r"[\w.-]+", name):
                raise ValueError(
                    f"expert name {name!r} must be letters, digits, '_', '-', '.', and not 'seed'; rename it"
                )
            _checked_model(model)
        return value

    @field_validator("scope")
    @classmethod
    def _scope_compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"must be mlp, all or a regular expression, and this one has {error}") from None
        return value


class Factory(Section):
    """How programs are written. Temperature of iteration t: temperature / (1 + decay (t - 1))."""

    model: str | None = Field(
        default=None,
        description="Model that writes the programs and is trained, named as models.seed is; by default a"
        " copy of the seed, as in the paper.",
    )
    programs: int = Field(
        default=3000,
        ge=1,
        description="Programs written per iteration. PAPER.md: programs per iteration, 3,000 (B2).",
    )
    iterations: int = Field(default=3, ge=1, description="Turns of the loop. PAPER.md: iterations, 3 (B2).")
    temperature: float = Field(
        default=1.2, gt=0, description="Sampling temperature of iteration 1. PAPER.md: temperature, 1.2 (B2)."
    )
    decay: float = Field(
        default=0.2,
        ge=0,
        description="Decay rate of the temperature. PAPER.md: temperature law, 0.2 (B1, law D).",
    )
    max_new_tokens: int = Field(
        default=1024, ge=1, description="Longest program, tokens. PAPER.md: not known."
    )
    batch: int = Field(
        default=64, ge=1, description="Programs written at once; changes speed and memory only."
    )
    collapse_below: float = Field(
        default=10.0,
        ge=0,
        le=100,
        description="An iteration with fewer distinct behaviours per 100 programs has collapsed. Ours.",
    )
    stop_on_collapse: bool = Field(
        default=False, description="The search ends after an iteration that collapsed. Ours."
    )

    @field_validator("model")
    @classmethod
    def _model_is_named_right(cls, value: str | None) -> str | None:
        return None if value is None else _checked_model(value)


class SandboxLimits(Section):
    """What a generated program may use. PAPER.md: timeout, not known."""

    seconds: float = Field(
        default=10.0, gt=0, le=MOST_SECONDS, description="Wall time of one program, seconds."
    )
    memory_gb: float = Field(default=4.0, gt=0, le=MOST_GIB, description="Memory of one program, GiB.")
    accept_weaker: bool = Field(
        default=False,
        description="Go on where this machine lacks a confinement layer; only for programs you trust.",
    )


class Budget(Section):
    """What the search may spend. It stops at the first limit that is reached and the run goes on to its final
    examination; that and the tuning of baselines are not counted."""

    attempts: int | None = Field(
        default=None, ge=1, description="Most programs the factory writes, over all iterations. Ours."
    )
    questions: int | None = Field(
        default=None,
        ge=1,
        description="Dev questions asked of the factory's programs after which none is begun. Ours.",
    )
    hours: float | None = Field(
        default=None, gt=0, description="Hours of the search after which no program is begun. Ours."
    )
    gpu_hours: float | None = Field(
        default=None,
        gt=0,
        description="The same in hours of each GPU the run holds; a run on CPUs never reaches it. Ours.",
    )


class Ray(Section):
    """Workers as actors of a Ray cluster, on any number of machines, in place of processes of this one.

    `ray: {}` starts a cluster on this machine for the run.
    """

    address: str | None = Field(
        default=None,
        min_length=1,
        description="Cluster to join: auto (that of this machine) or host:port; by default one is started"
        " here and ends with the run. Ours.",
    )
    gpus: float = Field(
        default=0, ge=0, description="GPUs that Ray reserves for each worker; threads are its CPUs. Ours."
    )
    seconds: float = Field(
        default=7200,
        gt=0,
        description="Longest a worker may take for one job (a batch of programs, an attempt, an exam of one"
        " model), its start included; then it is replaced and the job handed out again. Ours.",
    )
    scratch: str | None = Field(
        default=None,
        min_length=1,
        description="Folder that every machine sees at the same path, for what a run computes once for all"
        " workers (probes, adapters as tensors); by default the system's temporary folder, which does for one"
        " machine. Ours.",
    )


Grid = Annotated[tuple[dict[str, Any], ...], Field(strict=False, min_length=1)]


def _paper_grid() -> dict[str, Grid]:
    weights = (0.2, 0.4, 0.6)
    return {
        "task_arithmetic": tuple({"WEIGHT": weight} for weight in weights),
        "ties": tuple({"WEIGHT": weight, "NORMALIZE": False} for weight in weights),
        "model_stock": ({},),
    }


class Config(Section):
    """A whole run."""

    name: str = Field(min_length=1, description="Name of the run, used in the report and for its folder.")
    seed: int = Field(
        default=0, ge=0, description="Random seed of the run: the same number gives the same archive."
    )
    models: Models
    task: Task
    factory: Factory = Factory()
    pairs: Pairs = Pairs()
    dpo: Dpo = Dpo()
    sandbox: SandboxLimits = SandboxLimits()
    budget: Budget = Budget()
    baselines: dict[str, Grid] = Field(
        default_factory=_paper_grid,
        description="Built-in program -> parameter sets tried on dev (its tuning budget). PAPER.md: tuning of"
        " baselines, 20/40/60 % (B1).",
    )
    finalists: int = Field(
        default=15,
        ge=1,
        description="Best programs by dev that are looked at again. PAPER.md: final selection, 15 (B2).",
    )
    promote: Literal["none", "best"] = Field(
        default="none",
        description="best: the winner of an iteration becomes the seed of the next where it surely gains on"
        " finalist_dev. PAPER.md: seed of later iterations, always the original (B2).",
    )
    controls: Annotated[tuple[ControlName, ...], Field(strict=False)] = Field(
        default=(),
        description="Controls that spend the run's budget once it has ended, see selfdev compare. Ours.",
    )
    besides: Annotated[tuple[TaskBesides, ...], Field(strict=False)] = Field(
        default=(),
        description="Tasks that the search never sees, by name or with keys of their own (name, path, grader,"
        " shots, skills, test, max_new_tokens): seed and best model are asked them once, at the end. Ours.",
    )
    workers: int = Field(
        default=2,
        ge=1,
        description="How many run and score programs: processes of this machine or, with ray, actors.",
    )
    ray: Ray | None = Field(
        default=None, description="Workers on a Ray cluster; by default processes of this machine. Ours."
    )
    threads: int = Field(default=1, ge=1, description="Torch threads of each worker, and of its programs.")
    device: Device = Field(
        default="auto",
        description="On what models write and answer; auto: on GPUs where there are any, one for each worker"
        " in turn. Programs merge on the CPU. Ours.",
    )
    engine: Literal["transformers", "vllm"] = Field(
        default="transformers",
        description="What answers questions; vllm needs a GPU for each worker and the extra of that name, and"
        " neither lm-eval's tasks nor task.sanity. Ours.",
    )

    @field_validator("baselines")
    @classmethod
    def _baselines_are_built_in(cls, value: dict[str, Grid]) -> dict[str, Grid]:
        problems = [p for name, grid in value.items() for p in _grid_problems(name, grid)]
        if problems:
            raise ValueError("; ".join(problems))
        return value

    @model_validator(mode="after")
    def _vllm_can_ask_it(self) -> Config:
        if self.engine == "vllm":
            if self.task.sanity:
                raise ValueError("engine is vllm and task.sanity reads a model's own numbers; set it to 0")
            for task in (self.task, *self.besides):
                if task.name.startswith("lm-eval:"):
                    raise ValueError(f"engine is vllm and {task.name} needs transformers; set engine to that")
        return self

    @model_validator(mode="after")
    def _besides_are_other_tasks(self) -> Config:
        titles = [self.task.title]
        for place, task in enumerate(self.besides):
            if task.title in titles:
                raise ValueError(
                    f"besides.{place} is {task.title}, which is asked already; name a task that the search"
                    " never sees"
                )
            titles.append(task.title)
        return self

    @model_validator(mode="after")
    def _earlier_seeds_have_names_of_their_own(self) -> Config:
        taken = [name for name in self.models.experts if re.fullmatch(r"seed_\d+", name)]
        if self.promote == "best" and taken:
            raise ValueError(
                f"models.experts.{taken[0]} has a name that promote: best gives to earlier seeds; rename it"
            )
        return self


def _grid_problems(name: str, grid: Grid) -> list[str]:
    """What is wrong with one baseline: its name, or parameters that its program does not have."""
    from selfdev import library
    from selfdev.gate import gate

    if name not in library.builtin_names():
        near = difflib.get_close_matches(name, library.builtin_names(), 1, 0.0)[0]
        return [f"baselines.{name} is not a built-in program, the nearest is {near}"]
    problems = {}
    for parameters in grid:
        try:
            library.load_program(name, parameters)
        except (SelfdevError, gate.Rejected) as error:
            problems[f"baselines.{name}: {error}"] = True
    return list(problems)


def lab_model(value: str) -> tuple[str, str] | None:
    """Family and name of a built-in model, `lab:a/seed` -> ("a", "seed"); None for anything else."""
    match = _LAB_MODEL.fullmatch(value)
    return (match[1], match[2]) if match else None


def _checked_model(value: str) -> str:
    if not value.strip():
        raise ValueError("a model is empty; give lab:FAMILY/NAME, a folder or a hub id")
    if value.startswith("lab:") and lab_model(value) is None:
        raise ValueError(f"{value!r} must look like lab:FAMILY/NAME, for example lab:a/seed")
    return value
