"""One lesson of the factory: it is trained, then looked at, and both are told in one record.

On a CPU this is done in the driver's process. On GPUs, and where the config names a config of accelerate, it
has processes of its own, and the workers give their GPUs back before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from selfdev.config.settings import Config
from selfdev.factory import factory
from selfdev.factory.apart import Tell, apart, launched_by
from selfdev.progress import Bars
from selfdev.records import Lessons
from selfdev.results import DpoStep, FactoryCheck, Trained
from selfdev.workers.devices import VISIBLE, gpus, resolve
from selfdev.workers.workers import Workers

T = TypeVar("T")


def trainer(
    config: Config, first: Path, bars: Bars, workers: Workers
) -> Callable[[Path, Path, Lessons, int], Trained]:
    """What the loop calls with start, out, lessons and seed; `first` is the factory of iteration 1.

    The training ends at the next step where the user has asked for an end.
    """
    device = resolve(config.device)
    launcher = None if config.dpo.accelerate is None else Path(config.dpo.accelerate)

    def done(work: Callable[..., T], args: tuple[Any, ...], file: Path | None, tell: Tell) -> T:
        def step(so_far: int, total: int) -> None:
            workers.stop_if_asked()
            tell(so_far, total)

        if device == "cpu" and launcher is None:
            return work(*args, step)
        return apart(work, args, step, file, _seeing(config, alone=file is None))  # type: ignore[no-any-return]

    def train(start: Path, out: Path, lessons: Lessons, seed: int) -> Trained:
        from selfdev.factory import check as factory_check
        from selfdev.factory import dpo

        stage, prompt = f"iteration {int(out.name.rpartition('_')[2]) - 1}", factory.prompt()
        if device != "cpu":
            workers.rest()
        told = (prompt, lessons, config.dpo, seed, device)

        def steps(tell: Tell) -> tuple[DpoStep, ...]:
            return done(dpo.train, (start, out, *told), launcher, tell)

        def look(tell: Tell) -> FactoryCheck:
            return done(factory_check.look, (out, start, first, *told), None, tell)

        log = bars.steps(f"{stage}: {config.dpo.objective.upper()}", steps)
        return Trained(log, bars.steps(f"{stage}: look at the factory", look))

    return train


def check_training(config: Config) -> None:
    """SelfdevError where the training could not begin: a config of accelerate that cannot be used."""
    from selfdev.factory.objectives import shares

    if config.dpo.accelerate is not None:
        shares(config.dpo, launched_by(Path(config.dpo.accelerate)))


def _seeing(config: Config, alone: bool) -> dict[str, str]:
    """Which GPUs a process sees: one alone, the first of the run's; several, all of them."""
    held = gpus(config.device)
    return {VISIBLE: ",".join(held[:1] if alone else held)}
