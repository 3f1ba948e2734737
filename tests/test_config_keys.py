"""Every key of the config has an effect: each is changed alone, and what it is for must change with it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, get_args

import numpy as np
import pytest
import torch
from conftest import Family
from fakes import FakeTrain, FakeWorkers, of_accuracy, silent, small_config
from safetensors.torch import load_file
from test_preferences import attempt, table
from transformers import AutoModelForCausalLM

from selfdev import collect, run
from selfdev.checkpoints import Checkpoint
from selfdev.collapse import collapsed
from selfdev.config.config import Config
from selfdev.config.settings import Ray, Section
from selfdev.factory import dpo, objectives
from selfdev.factory.check import look
from selfdev.factory.objectives import adapters, arguments
from selfdev.factory.preferences import make_pairs
from selfdev.factory.training import trainer
from selfdev.finish import final_examination, tune_baselines
from selfdev.loop import run_loop
from selfdev.progress import Bars
from selfdev.records import Lessons
from selfdev.store.archive import Archive
from selfdev.workers.workers import Setup, Written


@dataclass
class World:
    """What the effects need: a family on disk and an empty folder."""

    family: Family
    folder: Path
    archive: Archive = field(init=False)

    def __post_init__(self) -> None:
        self.archive = Archive(self.folder / "archive.sqlite", create=True)


@dataclass
class Shapes(FakeWorkers):
    """Keeps the shapes of the random numbers it is given."""

    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def write(
        self, factory: Path, prompt: str, temperature: float, batches: Sequence[np.ndarray]
    ) -> Iterator[tuple[int, Written]]:
        self.shapes += [batch.shape for batch in batches]
        return super().write(factory, prompt, temperature, batches)


def setup(config: Config, world: World) -> object:  # noqa: ARG001
    """What every worker is told, with the models opened."""
    return run.make_setup(config, run.open_models(config), ())


def shown(config: Config, world: World) -> object:  # noqa: ARG001
    """Names and dtypes of what programs see."""
    return run.open_models(config).shown


def looped(config: Config, world: World) -> object:
    """What is written, tried and trained in the loop."""
    workers, train = Shapes(), FakeTrain()
    run_loop(config, Path("seed"), world.folder, world.archive, workers, train, silent)
    texts = [a.text for a in world.archive.attempts()]
    starts = [(start.name, len(pairs)) for start, _, pairs, _ in train.calls]
    return workers.shapes, [row[2] for row in workers.written], texts, starts


def warned(config: Config, world: World) -> object:
    """Whether a loop of few behaviours is called collapsed."""
    looped(config, world)
    return [collapsed(world.archive.attempts("factory", t), config.factory.collapse_below) for t in (1, 2)]


def stopped(config: Config, world: World) -> object:
    """The iterations of a loop that all count as collapsed."""
    varied = config.factory.model_copy(update={"collapse_below": 100.0})
    looped(config.model_copy(update={"factory": varied}), world)
    return {a.iteration for a in world.archive.attempts("factory")}


def paired(config: Config, world: World) -> object:  # noqa: ARG001
    """Pairs of the second iteration of a fixed table."""
    attempts = [
        *table(*range(0, 60, 2)),
        *table(*range(1, 61, 2), iteration=2, first=50),
        attempt(99, None, 2),
    ]
    return make_pairs(attempts, 2, config.pairs, random.Random(0))


def training(config: Config, world: World) -> object:
    """What TRL and PEFT are told."""
    told = arguments(config.dpo, 0, "cpu", world.folder).to_dict()
    low_rank = adapters(config.dpo)
    return told, low_rank and (low_rank.r, low_rank.lora_alpha)


def threads(config: Config, world: World) -> object:
    """CPU threads when the training loads its model."""
    before = torch.get_num_threads()

    def refuse(*_: object) -> NoReturn:
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dpo, "_load", refuse)
        with pytest.raises(InterruptedError):
            dpo.train(Path("seed"), world.folder / "next", "", Lessons(()), config.dpo, 0)
    used = torch.get_num_threads()
    torch.set_num_threads(before)
    return used


def launched(config: Config, world: World) -> object:
    """By what processes of their own are started."""
    asked: list[object] = []

    def refuse(work: Callable[..., Any], args: Any, tell: Any, accelerate: Any, seen: Any) -> NoReturn:  # noqa: ARG001
        asked.append((work.__name__, accelerate))
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("selfdev.factory.training.apart", refuse)
        patch.setattr(dpo, "train", refuse)
        train = trainer(config, world.family.seed, Bars(lambda *_: None), FakeWorkers())
        with pytest.raises((InterruptedError, TypeError)):
            train(world.family.seed, world.folder / "iteration_2", Lessons(()), 0)
    return asked


def averaged(config: Config, world: World) -> object:
    """The next factory's weights, after training that sets every weight to one."""

    class Trainer:
        model = AutoModelForCausalLM.from_pretrained(world.family.seed, dtype="float32")
        accelerator = SimpleNamespace(unwrap_model=lambda model: model)
        state = SimpleNamespace(log_history=[])

        def remove_callback(self, _: object) -> None:
            pass

        def train(self) -> None:
            for weights in self.model.parameters():
                torch.nn.init.ones_(weights)

    full = config.dpo.model_copy(update={"method": "full"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objectives, "make_trainer", lambda *_: Trainer())
        dpo.train(world.family.seed, world.folder / "next", "", Lessons(()), full, 0)
    return sum(float(t.float().sum()) for t in load_file(world.folder / "next/model.safetensors").values())


def checked(config: Config, world: World) -> object:
    """The look at a factory; it is the first one itself."""
    seed = world.family.seed
    return look(seed, seed, seed, "1 plus 2 is ", Lessons((), longest=4), config.dpo, 0)


def examined(config: Config, world: World) -> object:
    """Who meets on fresh dev questions, and what is asked at the end."""
    looped(config, world)
    workers = FakeWorkers()
    tune_baselines(config, world.archive, FakeWorkers(), silent)
    models = [Checkpoint(name, Path(name), {}, {}) for name in ("seed", "one")]
    final_examination(config, models[0], models[1:], world.archive, workers, silent)
    return sorted(world.archive.examined("finalist_dev")), workers.examined


def collected(config: Config, world: World) -> object:
    """The name in the result."""
    world.archive.put("config", config.model_dump_json())
    world.archive.add_examined("seed", "seed", "test", None, of_accuracy(3))
    return collect.collect(world.folder, world.archive).name


def started(config: Config, world: World) -> object:
    """How many workers are asked for, where, and in which folder they find the probes."""
    asked: list[object] = []

    def refuse(told: Setup, count: int, _: object, ray: Ray | None) -> NoReturn:
        asked.extend((count, ray, told.probes[0].slots[0].file.parents[1]))
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "Workers", refuse)
        with pytest.raises(InterruptedError):
            run.work(config, run.open_models(config), world.folder, world.archive)
    return asked


def ended(config: Config, world: World) -> object:
    """Which controls are run behind a run that has ended."""
    asked: list[object] = []
    world.archive.put("config", config.model_dump_json())
    world.archive.put("best", "seed")
    world.archive.add_examined("seed", "seed", "test", None, of_accuracy(3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("selfdev.evidence.compare.compare", lambda _, controls: asked.extend(controls))
        patch.setattr(run, "check_questions", lambda _: None)
        run.run_config(config, world.folder)
    return asked


def promoted(config: Config, world: World) -> object:
    """After which iterations a new seed is looked for."""
    asked: list[int] = []

    def refuse(*_: object) -> NoReturn:
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "Workers", lambda *_: nullcontext(FakeWorkers()))
        patch.setattr(run, "run_loop", lambda *given: given[-1](1))
        patch.setattr(run, "promote_winner", lambda _, iteration, *__: asked.append(iteration))
        patch.setattr(run, "tune_baselines", refuse)
        with pytest.raises(InterruptedError):
            run.work(config, run.open_models(config), world.folder, world.archive)
    return asked


Effect = Callable[[Config, World], object]
ALL_EFFECTS = (
    setup, shown, looped, warned, stopped, paired, training, launched, threads, averaged, checked, examined,
    collected, started, ended, promoted,
)  # fmt: skip
EFFECTS: dict[str, tuple[Any, Effect]] = {
    "name": ("other", collected),
    "seed": (1, looped),
    "models.seed": ("add", setup),
    "models.experts": ({"add": "add"}, setup),
    "models.scope": ("all", shown),
    "models.show_dtype": ("float32", shown),
    "task.name": ("other.jsonl", setup),
    "task.path": ("data", setup),
    "task.grader": ("exact", setup),
    "task.grading": ("flexible", setup),
    "task.shots": (2, setup),
    "task.chat": (True, setup),
    "task.i_know_dev_is_test": (True, setup),
    "task.sanity": (4, setup),
    "task.dev": (11, setup),
    "task.first_block": (5, setup),
    "task.finalist_dev": (21, setup),
    "task.skills": (["times"], setup),
    "task.test": (3, setup),
    "task.max_new_tokens": (17, setup),
    "task.batch": (9, setup),
    "factory.model": ("add", setup),
    "factory.programs": (31, looped),
    "factory.iterations": (2, looped),
    "factory.temperature": (1.0, looped),
    "factory.decay": (0.1, looped),
    "factory.max_new_tokens": (4, looped),
    "factory.batch": (5, looped),
    "factory.collapse_below": (60, warned),
    "factory.stop_on_collapse": (True, stopped),
    "pairs.rule": ("score-weighted", paired),
    "pairs.top": (0.4, paired),
    "pairs.bottom": (0.4, paired),
    "pairs.min_each": (5, paired),
    "pairs.carry_over": (2, paired),
    "pairs.max_pairs": (3, paired),
    "pairs.failures_as_rejected": (True, paired),
    "pairs.floor": (0.1, paired),
    "pairs.sharpness": (4.0, paired),
    "dpo.objective": ("ipo", training),
    "dpo.divergence": ("js_divergence", training),
    "dpo.method": ("full", training),
    "dpo.lora_rank": (8, training),
    "dpo.lora_alpha": (8.0, training),
    "dpo.learning_rate": (1e-3, training),
    "dpo.beta": (0.5, training),
    "dpo.epochs": (2, training),
    "dpo.batch": (3, training),
    "dpo.sft_weight": (0.5, training),
    "dpo.micro_batch": (2, training),
    "dpo.accelerate": ("two.yaml", launched),
    "dpo.restart": ("seed", looped),
    "dpo.average": (0.5, averaged),
    "dpo.held_out": (0.4, looped),
    "dpo.kl_programs": (3, checked),
    "dpo.threads": (2, threads),
    "sandbox.seconds": (3.0, setup),
    "sandbox.memory_gb": (1.0, setup),
    "sandbox.accept_weaker": (True, setup),
    "budget.attempts": (40, looped),
    "budget.questions": (1, looped),
    "budget.hours": (1e-9, looped),
    "budget.gpu_hours": (1e-9, looped),
    "baselines": ({"linear": [{}]}, setup),
    "finalists": (2, examined),
    "controls": (["untrained"], ended),
    "promote": ("best", promoted),
    "besides": (["gsm8k"], examined),
    "workers": (3, started),
    "ray.address": ("auto", started),
    "ray.gpus": (1, started),
    "ray.seconds": (9.0, started),
    "ray.scratch": ("scratch", started),
    "threads": (3, setup),
    "device": ("cpu", setup),
    "engine": ("vllm", setup),
}


# The value of another key without which a key does nothing.
ONLY_FOR = {
    "task.path": ("task", "name", "gsm8k"),
    "task.i_know_dev_is_test": ("task", "name", "gsm8k"),
    "task.grader": ("task", "name", "q.jsonl"),
    "dpo.divergence": ("dpo", "objective", "f-dpo"),
    "budget.gpu_hours": ("ray", "gpus", 1.0),
    "pairs.floor": ("pairs", "rule", "same-prompt-halves"),
    "pairs.sharpness": ("pairs", "rule", "score-weighted"),
}


def all_keys() -> set[str]:
    keys = set()
    for name, described in Config.model_fields.items():
        section = section_of(described.annotation)
        keys |= {f"{name}.{key}" for key in section.model_fields} if section else {name}
    return keys


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a key is, if it is one or may be one."""
    optional = type(None) in get_args(annotation)
    parts = get_args(annotation) if optional else (annotation,)
    return next((p for p in parts if isinstance(p, type) and issubclass(p, Section)), None)


def test_every_key_is_looked_at() -> None:
    assert set(EFFECTS) == all_keys()


def config_of(
    family: Family,
    key: str | None = None,
    value: Any = None,
    only_for: tuple[str, str, Any] | None = None,
) -> Config:
    """A small run on the family, with one key changed; models are given by name."""
    folders = {"seed": family.seed, **family.experts}
    named = {"seed": "seed", "experts": {"multiply": "multiply", "compare": "compare"}}
    values: dict[str, Any] = {"models": named}
    if key is not None:
        section, _, last = key.rpartition(".")
        values[section or last] = {**values.get(section, {}), last: value} if section else value
    if only_for is not None:
        section, name, needed = only_for
        values[section] = {**values.get(section, {}), name: needed}
    models = values["models"]
    models["seed"] = str(folders[models["seed"]])
    models["experts"] = {name: str(folders[model]) for name, model in models["experts"].items()}
    if key == "ray.scratch":
        values["ray"]["scratch"] = str(family.seed.parent)
    if key == "factory.model":
        values["factory"]["model"] = str(folders[value])
    if key == "baselines":
        return small_config(**{**values, "baselines": {}}).model_copy(update={"baselines": {"linear": ({},)}})
    return small_config(**values)


@pytest.mark.parametrize("key", EFFECTS)
def test_a_changed_key_changes_what_it_is_for(family: Family, tmp_path: Path, key: str) -> None:
    value, effect = EFFECTS[key]
    results = []
    only_for = ONLY_FOR.get(key)
    plain, changed = config_of(family, only_for=only_for), config_of(family, key, value, only_for)
    for name, config in (("plain", plain), ("changed", changed)):
        (tmp_path / name).mkdir()
        world = World(family, tmp_path / name)
        results.append(repr(effect(config, world)).replace(str(world.folder), ""))
        world.archive.close()
    assert results[0] != results[1]


@pytest.mark.parametrize("effect", ALL_EFFECTS)
def test_without_a_change_nothing_changes(family: Family, tmp_path: Path, effect: Effect) -> None:
    # Otherwise the comparison above would hold for any key.
    results = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        world = World(family, tmp_path / name)
        results.append(repr(effect(config_of(family), world)).replace(str(world.folder), ""))
        world.archive.close()
    assert results[0] == results[1]
