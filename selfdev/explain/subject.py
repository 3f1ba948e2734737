"""What is to be explained: a program, the models and questions for that, and a bench on which it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from selfdev.checkpoints import ModelView, TensorSlot
from selfdev.collect import config_of, finished_archive
from selfdev.config.config import Config
from selfdev.errors import SelfdevError
from selfdev.explain.behaviour import Bench
from selfdev.export import EXPERTS, PROBES
from selfdev.finish import name_of
from selfdev.gate import gate
from selfdev.library import builtin_names, load_program
from selfdev.lineage import promotions
from selfdev.records import Attempt, State
from selfdev.run import Models, as_files, check_confinement, check_questions, open_models
from selfdev.sandbox import Limits
from selfdev.store.archive import Archive

WITHOUT_MODELS = Limits(20.0, 4.0)


@dataclass(frozen=True, slots=True)
class Subject:
    """The program to explain, the seed of its random numbers, the models and questions to do it with (None:
    probes only), and the run it is from."""

    name: str
    code: str
    seed: int
    config: Config | None
    run: Path | None = None


def subject_of(
    target: str, config: Config | None, parameters: Mapping[str, object], random_seed: int
) -> Subject:
    """The program that a run's folder, a built-in name or a path stands for."""
    folder = Path(target)
    if target in builtin_names() or not folder.is_dir():
        try:
            code = load_program(target, parameters).code
        except gate.Rejected as refusal:
            raise SelfdevError(f"program {target} is refused by the gate ({refusal}); correct it") from None
        return Subject(Path(target).stem, code, random_seed, config)
    if config is not None:
        raise SelfdevError(f"{folder} is a run, which has its own config; leave --config out")
    with finished_archive(folder) as archive:
        best = _best(archive, folder)
        code = gate.set_parameters(best.code, parameters) if parameters else best.code
        config = _at(best.iteration, config_of(folder, archive), folder, archive)
        return Subject(name_of(best), code, best.seed, config, folder)


def _at(iteration: int, config: Config, folder: Path, archive: Archive) -> Config:
    """The config with the models that programs of an iteration merged (selfdev.lineage)."""
    earlier = [p.iteration for p in promotions(archive) if p.promoted and p.iteration < iteration]
    seeds = [config.models.seed, *(str(folder / "seeds" / f"iteration_{t + 1}") for t in earlier)]
    old = {f"seed_{place}": seed for place, seed in enumerate(seeds[:-1], 1)}
    models = {"seed": seeds[-1], "experts": {**config.models.experts, **old}}
    return config.model_copy(update={"models": config.models.model_copy(update=models)})


def _best(archive: Archive, folder: Path) -> Attempt:
    name = archive.get("best") or "seed"
    for attempt in archive.attempts("factory"):
        if name_of(attempt) == name:
            return attempt
    raise SelfdevError(
        f"the best model of {folder} is {name} itself, so that there is no program to explain; give another"
        f" run, or a program with --config {folder / 'config.yaml'}"
    )


@contextmanager
def on_bench(
    subject: Subject, scratch: Path, accept_weaker: bool
) -> Iterator[tuple[Bench, Sequence[ModelView], Models | None, list[str]]]:
    """A bench on which the program runs, what is shown there, and what it cannot do."""
    config = subject.config
    if config is not None:
        check_confinement(config)
        opened = open_models(config)
        check_questions(config)
        models = as_files(opened, scratch / "experts")
        limits = Limits(config.sandbox.seconds, config.sandbox.memory_gb, config.threads)
        weaker = config.sandbox.accept_weaker
        with Bench(models.shown, scratch, limits, subject.seed, real=True, accept_weaker=weaker) as bench:
            yield bench, models.shown, models, _settle(bench, subject)
        return
    failures = []
    for experts in EXPERTS:
        shown = made_up(experts)
        with Bench(
            shown, scratch, WITHOUT_MODELS, subject.seed, real=False, accept_weaker=accept_weaker
        ) as b:
            try:
                troubles = _settle(b, subject)
            except SelfdevError as failure:
                failures.append(failure)
                continue
            yield b, shown, None, troubles
            return
    raise failures[0]


def _settle(bench: Bench, subject: Subject) -> list[str]:
    troubles = bench.settle(subject.code)
    outcome = bench.behave(subject.code).outcome
    if outcome.state is not State.MERGED:
        raise SelfdevError(
            f"{subject.name} ends in {outcome.state} on probes ({outcome.reason}), so that there is nothing"
            " to explain; correct it"
        )
    return troubles


def made_up(experts: int) -> tuple[ModelView, ...]:
    """What small models with two layers would look like, for probes where no models are given."""
    slots = tuple(
        TensorSlot(name, "F32", (8,) if "norm" in name else (8, 8), Path(), 0, 0) for name in PROBES
    )
    names = ["seed", *(f"expert_{place}" for place in range(1, experts + 1))]
    return tuple(ModelView(name, slots) for name in names)


def known_programs(config: Config | None) -> dict[str, str]:
    """Human-designed methods as they are and with the parameters of a config's grids, the shortest first."""
    found = {name: load_program(name).code for name in builtin_names()}
    for name, grid in (config.baselines if config is not None else {}).items():
        for values in grid:
            shown = " ".join([name, *(f"{key}={value}" for key, value in values.items())])
            found[shown] = load_program(name, values).code
    return dict(sorted(found.items(), key=lambda item: len(item[1])))
