"""One lesson of the factory: it is trained, then looked at, and both are told in one record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from selfdev.config.settings import Config
from selfdev.factory import factory
from selfdev.progress import Bars
from selfdev.records import Lessons
from selfdev.results import DpoStep, Trained


def trainer(
    config: Config, first: Path, bars: Bars, stop_if_asked: Callable[[], None]
) -> Callable[[Path, Path, Lessons, int], Trained]:
    """What the loop calls with start, out, lessons and seed; `first` is the factory of iteration 1.

    `stop_if_asked` is called at every step and raises where the user has asked for an end.
    """

    def train(start: Path, out: Path, lessons: Lessons, seed: int) -> Trained:
        from selfdev.factory import check as factory_check
        from selfdev.factory import dpo

        stage, prompt = f"iteration {int(out.name.rpartition('_')[2]) - 1}", factory.prompt()

        def work(tell: Callable[[int, int], None]) -> tuple[DpoStep, ...]:
            def step(done: int, total: int) -> None:
                stop_if_asked()
                tell(done, total)

            return dpo.train(start, out, prompt, lessons, config.dpo, seed, step)

        steps = bars.steps(f"{stage}: {config.dpo.objective.upper()}", work)
        check = bars.steps(
            f"{stage}: look at the factory",
            lambda tell: factory_check.look(out, start, first, prompt, lessons, config.dpo, seed, tell),
        )
        return Trained(steps, check)

    return train
