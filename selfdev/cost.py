"""What a run costs: each stage is logged as it ends, and the archive is added up for the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from selfdev.config.config import Config
from selfdev.progress import Bars
from selfdev.results import Cost
from selfdev.store.archive import Archive
from selfdev.workers.devices import gpus, in_use
from selfdev.workers.energy import Meter, meter


def bars_of(config: Config, archive: Archive) -> Bars:
    """Progress bars that log each stage, with the GPUs the run holds and, without Ray, their energy."""
    held = gpus(config.device) if config.ray is None else ()  # with it they may be anywhere but here
    return Bars(stage_log(archive, in_use(config), meter(held)))


def stage_log(archive: Archive, held: float, joules: Meter) -> Callable[[str, float], None]:
    """What is told a stage's name and seconds; its joules are those since the stage before it ended."""
    last = joules()

    def log(stage: str, seconds: float) -> None:
        nonlocal last
        now = joules()
        used = None if now is None or last is None else round(now - last, 1)
        last = now
        archive.log("stage", name=stage, seconds=seconds, gpus=held, joules=used)

    return log


def cost_of(config: Config, archive: Archive) -> Cost:
    """Questions asked and spared, tokens written, GPU hours and energy."""
    scored = [
        (a.same_as is None, a.score.n, a.score.tokens)
        for a in archive.each(only="scored", texts=False)
        if a.score is not None
    ]
    examined = {split: archive.examined(split).values() for split in ("finalist_dev", "test")}
    stages = archive.events("stage")
    joules = [stage["joules"] for stage in stages if stage["joules"] is not None]
    return Cost(
        dev=sum(n for own, n, _ in scored if own),
        spared_by_race=sum(config.task.dev - n for own, n, _ in scored if own),
        spared_by_behaviour=sum(n for own, n, _ in scored if not own),
        finalist_dev=sum(score.n for score in examined["finalist_dev"]),
        test=sum(score.n for score in examined["test"]),
        tokens_of_programs=sum(event["written"] for event in archive.events("tokens")),
        tokens_of_answers=sum(tokens for own, _, tokens in scored if own)
        + sum(score.tokens for scores in examined.values() for score in scores),
        gpu_hours=sum(stage["gpus"] * stage["seconds"] for stage in stages) / 3600,
        joules=sum(joules) if joules else None,
    )


def stage_seconds(archive: Archive) -> Counter[str]:
    """Seconds of each stage, over all sessions."""
    spent: Counter[str] = Counter()
    for stage in archive.events("stage"):
        spent[stage["name"]] += stage["seconds"]
    return spent
