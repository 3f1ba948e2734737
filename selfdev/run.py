"""One run from config to report: opens the models, drives loop and final examination, writes the folder."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from selfdev.checkpoints import (
    Checkpoint,
    ModelView,
    check_finite,
    check_rows,
    fill,
    lay_out,
    open_checkpoint,
    views,
)
from selfdev.collect import collect
from selfdev.config.config import Config, dump
from selfdev.cost import bars_of
from selfdev.errors import SelfdevError
from selfdev.factory.training import check_training, trainer
from selfdev.fingerprint import make_probes
from selfdev.finish import final_examination, tune_baselines
from selfdev.interrupt import Stop, gently
from selfdev.library import load_program
from selfdev.loop import run_loop
from selfdev.results import RunResult
from selfdev.sandbox import protections
from selfdev.sandbox.layers import in_words, missing, refusal
from selfdev.saving import dtype_of, line_of, promote_winner, save_best
from selfdev.store.archive import Archive
from selfdev.store.folder import open_archive
from selfdev.store.inputs import settle_inputs
from selfdev.store.temporary import temporary_folder
from selfdev.tasks.questions import exam_questions
from selfdev.tasks.tasks import Task, besides_problems, load_task
from selfdev.workers.workers import Setup, Workers

CHANGEABLE = ("workers", "ray", "controls")  # may differ when a run goes on: its own results stay the same


@dataclass(frozen=True, slots=True)
class Models:
    """The opened checkpoints of a run, what programs see of them, and the folder of the first factory."""

    seed: Checkpoint
    experts: tuple[Checkpoint, ...]
    shown: tuple[ModelView, ...]
    factory: Path


def run_config(config: Config, folder: Path) -> RunResult:
    """Run the loop in `folder`, going on with what its archive holds; returns what the report shows."""
    check_confinement(config)
    check_training(config)
    models = open_models(config)
    check_questions(config)
    with open_archive(folder) as archive:
        settle_config(config, folder, archive)
        try:
            if archive.get("best") is None:
                work(config, models, folder, archive)
        except Stop:
            report(folder, archive)
            raise
        result = report(folder, archive)
    if config.controls:
        from selfdev.evidence.compare import compare

        compare(folder, controls=config.controls)
    return result


def report(folder: Path, archive: Archive) -> RunResult:
    """Write the report of what there is so far; returns what it shows."""
    from selfdev.report.report import write_report

    result = collect(folder, archive)
    write_report(result, folder / "report.html")
    return result


def open_models(config: Config) -> Models:
    """Open and check the models of a config by their headers."""
    from selfdev.api import model_folder

    seed = open_checkpoint(model_folder(config.models.seed), "seed")
    named = config.models.experts.items()
    experts = tuple(open_checkpoint(model_folder(path), name, seed) for name, path in named)
    shown = views(seed, experts, config.models.scope, dtype_of(config))
    for expert in experts:
        check_rows(seed, expert, seed.slots)  # in scope or not: experts are scored as they are
    named_factory = config.factory.model
    writes = seed if named_factory is None else open_checkpoint(model_folder(named_factory), "factory")
    check_finite(shown)
    return Models(seed, experts, shown, writes.path)


def as_files(models: Models, file: Path) -> Models:
    """The models with adapters and other vocabularies computed once, into `file`, where programs see them."""
    shown = lay_out(models.shown, file)
    fill(models.shown, shown)
    pairs = zip(models.experts, shown[1:], strict=True)
    experts = tuple(replace(e, slots=e.slots | {s.name: s for s in view.slots}) for e, view in pairs)
    return replace(models, experts=experts, shown=shown)


def check_confinement(config: Config) -> None:
    """SelfdevError where programs can be kept from neither files nor network and that was not accepted."""
    active = [name for name, there in protections().items() if there]
    lacking = missing(active)
    if lacking and not config.sandbox.accept_weaker:
        raise SelfdevError(refusal(lacking, active))


def check_questions(config: Config) -> None:
    """SelfdevError when the task has too few questions for the sizes in the config."""
    problems = question_problems(config)
    if problems:
        raise SelfdevError(problems[0])


def question_problems(config: Config) -> list[str]:
    """A sentence for each size in the config that the task has too few questions for."""
    task = questions_of(config)
    if task.no_dev:
        return [task.no_dev]
    problems = []
    for name, wanted in _sizes(config).items():
        held = len(exam_questions(task, name, _sizes(config)))  # type: ignore[arg-type]
        if held < wanted or held == 0:
            problems.append(
                f"task.{name} asks for {wanted} questions and {task.name} has {held} left for it; lower it."
            )
    mine = task.dev[: config.task.dev + config.task.finalist_dev]
    return problems + besides_problems(config.besides, mine)


def questions_of(config: Config) -> Task:
    """The task of a config."""
    t, taken = config.task, dev_from_test(config)
    return load_task(t.name, t.shots, path=t.path, grader=t.grader, dev_from_test=taken, skills=t.skills)


def dev_from_test(config: Config) -> int:
    """How many test questions are taken for dev: none, unless the config says that it knows."""
    return config.task.dev + config.task.finalist_dev if config.task.i_know_dev_is_test else 0


def settle_config(config: Config, folder: Path, archive: Archive) -> None:
    """Keep the config of a new run; a run that goes on must have the same one."""
    kept = archive.get("config")
    if kept is None:
        environment = describe_environment(config)
        _write(folder / "config.yaml", dump(config))
        _write(folder / "environment.json", json.dumps(environment, indent=2) + "\n")
        archive.put("environment", json.dumps(environment))
        archive.put("lead", config.task.grading)
        archive.put("config", config.model_dump_json())
        return
    old, new = (_flat(json.loads(text)) for text in (kept, config.model_dump_json()))
    differ = {k for k in old.keys() | new.keys() if old.get(k) != new.get(k)}
    changed = sorted(k for k in differ if k.split(".")[0] not in CHANGEABLE)
    if changed:
        key = changed[0]
        raise SelfdevError(
            f"{folder} holds a run with {key} = {old.get(key)!r} and the config now says {new.get(key)!r}; "
            "give another --out or the config it was started with."
        )


def work(config: Config, models: Models, folder: Path, archive: Archive) -> None:
    """Everything that takes long: loop, baselines, finalists, test, and the best checkpoint."""
    bars = bars_of(config, archive)
    settle_inputs(questions_of(config), [models.seed, *models.experts], archive)
    factories = folder / "factory"
    factories.mkdir(exist_ok=True)
    with (
        scratch_folder(config) as scratch,
        staffed(config, models) as (laid, workers),
    ):
        line = line_of(config, laid.seed, laid.experts, folder, Path(scratch), archive)

        def promote(iteration: int) -> None:
            if config.promote == "best":
                promote_winner(config, iteration, line, workers, bars)

        train = trainer(config, laid.factory, bars, workers)
        run_loop(config, laid.factory, factories, archive, workers, train, bars, line.parents, promote)
        tune_baselines(config, archive, workers, bars)
        best = final_examination(
            config, laid.seed, laid.experts, archive, workers, bars, parents=line.parents
        )
        save_best(config, laid.seed, laid.experts, best, folder, archive)
    archive.put("best", best.name)


@contextmanager
def staffed(config: Config, models: Models | None = None) -> Iterator[tuple[Models, Workers]]:
    """The models of a config, opened here where they are not given, and workers that hold them."""
    opened = models or open_models(config)
    with scratch_folder(config) as scratch:
        laid = as_files(opened, Path(scratch) / "experts")
        probes = make_probes(laid.shown, Path(scratch))
        setup = make_setup(config, laid, probes)
        with gently() as stopping, Workers(setup, config.workers, stopping, config.ray) as workers:
            yield laid, workers


@contextmanager
def scratch_folder(config: Config | None) -> Iterator[str]:
    """A folder for what all workers see and nobody keeps."""
    place = config.ray.scratch if config and config.ray else None
    with ExitStack() as stack:
        try:
            made = stack.enter_context(temporary_folder(Path(place) if place else None))
        except OSError as error:
            if place is None:
                raise
            raise SelfdevError(
                f"ray.scratch {place} cannot be written ({error.strerror}); give a folder that all machines"
                " see."
            ) from None
        yield str(made)


def make_setup(config: Config, models: Models, probes: tuple[ModelView, ...]) -> Setup:
    """What a worker needs, from the config."""
    known = {name: load_program(name).code for name in config.baselines}
    return Setup(
        models.seed, models.experts, config.models.scope, dtype_of(config), config.sandbox.seconds,
        config.sandbox.memory_gb, config.sandbox.accept_weaker, config.task.name, config.task.shots,
        _sizes(config), config.task.first_block, config.task.max_new_tokens, config.task.batch,
        config.threads, known, probes, path=config.task.path, grader=config.task.grader,
        dev_from_test=dev_from_test(config), chat=config.task.chat, lead=config.task.grading,
        sanity=config.task.sanity, skills=config.task.skills, factory=models.factory,
        device=config.device, engine=config.engine,
    )  # fmt: skip


def describe_environment(config: Config) -> dict[str, Any]:
    """Versions, machine and protections of a run."""
    packages = (
        "selfdev",
        "torch",
        "transformers",
        "trl",
        "peft",
        "safetensors",
        "tokenizers",
        "numpy",
        "scipy",
    )
    there = protections()
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in packages},
        "protections": there,
        "accept_weaker": config.sandbox.accept_weaker,
        "confinement": in_words(name for name, active in there.items() if active),
    }


def _sizes(config: Config) -> dict[str, int]:
    return {"dev": config.task.dev, "finalist_dev": config.task.finalist_dev, "test": config.task.test}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
