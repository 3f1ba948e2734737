"""How a turn of the loop scales from 1 to 512 workers: the real scheduler, with simulated workers and time.

    python benchmarks/scale.py                 # writes benchmarks/scale.json and benchmarks/scale.svg

The crew that hands out jobs in a run (`selfdev.workers.crew`) hands them out here too; only its members are
simulated: they wait on no process, and their clock jumps to the next event. A job takes

- a time drawn from a log-normal law. The paper tells no times, so its median is what `selfdev doctor` assumes
  for one GPU of 80 GB on configs/paper.yaml (`selfdev.doctor.estimate.big_gpu`: a batch of programs to its
  token limit; merging a 7B model and 100 five-shot questions). Its sigma, 0.5, is ours: nine in ten jobs lie
  between 0.44 and 2.3 times the median;
- for one attempt in a hundred the sandbox's limit of 600 s instead, 14 times the median (a straggler); what
  the same turn is without them stands beside it;
- with a chance of one in a hundred a part of that, at which the worker dies; its successor needs a minute to
  load the models, and the job is handed out again. Probes, which are over at once, do not die.

Every result costs the driver 5 ms, one after the other: taking it, storing it (benchmarks/big_archive.json)
and handing out the next. Efficiency is the work that led to results, divided by workers x time. "attempts" is
the part that is handed out by need ("even": without stragglers), "turn" adds the writing of the programs and,
on one GPU as today, DPO.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfdev.config.config import load_config
from selfdev.doctor.estimate import assumed_size, big_gpu, load_of
from selfdev.report import svg
from selfdev.workers.crew import Crew, Died
from selfdev.workers.serving import Job

HERE = Path(__file__).parent
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SIGMA = 0.5
STRAGGLERS = 0.01
FAILURES = 0.01
LOAD = 60.0  # seconds until a new worker has its models
DRIVER = 0.005  # seconds of the driver per result
PROBE = 0.3  # seconds of gate and probes


@dataclass(frozen=True)
class Times:
    """Medians in seconds of a batch of programs, a probe and an attempt; of DPO; the sandbox's limit."""

    write: float
    probe: float
    attempt: float
    train: float
    limit: float
    programs: int = 3000
    batch: int = 64


@dataclass
class Clock:
    """Simulated seconds, and the events to come as (when, number, member)."""

    now: float = 0.0
    events: list[tuple[float, int, Simulated]] = field(default_factory=list)
    number: int = 0

    def at(self, when: float, member: Simulated) -> None:
        self.number += 1
        heapq.heappush(self.events, (when, self.number, member))


class Simulated:
    """A worker that only takes time: its job is how long it works and the chance to die."""

    def __init__(self, clock: Clock, ready: float, rng: random.Random) -> None:
        self.job: tuple[int, Job] | None = None
        self.pid = 0
        self._clock, self._ready, self._rng = clock, ready, rng
        self._dies = False

    def give(self, work: Callable[..., Any], job: tuple[int, Job]) -> None:  # noqa: ARG002
        seconds, chance = job[1]
        self._dies = self._rng.random() < chance
        share = self._rng.random() if self._dies else 1.0
        self.job = job
        self._clock.at(max(self._clock.now, self._ready) + seconds * share, self)

    def take(self) -> tuple[bool, Any]:
        if self._dies:
            raise Died("chance")
        return True, None

    def end(self, patience: float) -> None:
        """Nothing is left to end."""


class Staff:
    """Simulated workers; the first of them have loaded their models before the turn began."""

    def __init__(self, clock: Clock, seed: int, load: float = LOAD, driver: float = DRIVER) -> None:
        self._clock, self._rng = clock, random.Random(seed)
        self._load, self._driver = load, driver
        self._replacing = False

    def hire(self, missing: int) -> list[Simulated]:
        ready = self._clock.now + self._load if self._replacing else 0.0
        hired = [Simulated(self._clock, ready, self._rng) for _ in range(missing)]
        self._replacing = True
        return hired

    def wait(self, busy: Sequence[Simulated], seconds: float) -> list[Simulated]:  # noqa: ARG002
        """The next event; the driver turns to it when it is done with the last one."""
        when, _, member = heapq.heappop(self._clock.events)
        self._clock.now = max(self._clock.now + self._driver, when)
        return [member]

    def close(self) -> None:
        """Nothing is shared."""


@dataclass(frozen=True)
class Work:
    """Seconds of every batch of programs, probe and attempt of a turn, and of its DPO."""

    batches: Sequence[float]
    probes: Sequence[float]
    attempts: Sequence[float]
    train: float


def turn(
    times: Times, workers: int, stragglers: float = STRAGGLERS, failures: float = FAILURES, seed: int = 0
) -> dict[str, float]:
    """Seconds of each stage of one turn with drawn times, and the efficiency of its parts."""
    rng = random.Random(seed)
    batches = [drawn(rng, times.write) for _ in range(0, times.programs, times.batch)]
    probes = [drawn(rng, times.probe) for _ in range(times.programs)]
    straggles = [rng.random() < stragglers for _ in range(times.programs)]
    attempts = [times.limit if slow else drawn(rng, times.attempt) for slow in straggles]
    return scheduled(Work(batches, probes, attempts, times.train), workers, failures, seed)


def scheduled(
    work: Work, workers: int, failures: float = FAILURES, seed: int = 0, load: float = LOAD,
    driver: float = DRIVER,
) -> dict[str, float]:  # fmt: skip
    """The same of a turn with known times, through the scheduler."""
    clock, spent = Clock(), []
    stages = ((work.batches, failures), (work.probes, 0.0), (work.attempts, failures))
    with Crew(Staff(clock, seed, load, driver), workers) as crew:
        for jobs, chance in stages:
            began = clock.now
            done = sum(1 for _ in crew.stream(print, [(job, chance) for job in jobs], lambda why: why))
            assert done == len(jobs)
            spent.append(clock.now - began)
    tried = sum(work.probes) + sum(work.attempts)
    total = sum(spent) + work.train
    return {
        "workers": workers,
        "write_s": spent[0],
        "probes_s": spent[1],
        "attempts_s": spent[2],
        "dpo_s": work.train,
        "turn_h": total / 3600,
        "efficiency_attempts": tried / workers / (spent[1] + spent[2]),
        "efficiency_writing": sum(work.batches) / workers / spent[0],
        "efficiency_turn": (tried + sum(work.batches) + work.train) / workers / total,
        "waiting_for_the_last_s": _tail(work.attempts, workers, spent[2]),
    }


def drawn(rng: random.Random, median: float) -> float:
    """A log-normal time."""
    return median * rng.lognormvariate(0, SIGMA)


def _tail(attempts: Sequence[float], workers: int, spent: float) -> float:
    return spent - sum(attempts) / workers


def paper_times() -> Times:
    """Times of the paper's experiment on GPUs of 80 GB, as `selfdev doctor` assumes them."""
    config = load_config(HERE.parent / "configs" / "paper.yaml")
    load = load_of(config, None, None, None)
    rates = big_gpu(config, assumed_size(7_000_000_000, config.models.scope), load)
    batches = max(config.task.dev / config.task.batch, 1.0)
    asked = config.task.dev * load.question * rates.read + batches * config.task.max_new_tokens * rates.answer
    pair = 2 * (load.prompt + config.factory.max_new_tokens / 2) * config.dpo.epochs
    return Times(
        write=load.prompt * rates.read + config.factory.max_new_tokens * rates.write,
        probe=PROBE,
        attempt=rates.merge + asked,
        train=config.pairs.max_pairs * pair * rates.train,
        limit=config.sandbox.seconds,
        programs=config.factory.programs,
        batch=config.factory.batch,
    )


def study(times: Times, workers: Sequence[int] = WORKERS) -> dict[str, Any]:
    """One turn at every number of workers, and where it bends."""
    rows = [turn(times, count) for count in workers]
    for row, count in zip(rows, workers, strict=True):
        row["efficiency_without_stragglers"] = turn(times, count, stragglers=0.0)["efficiency_attempts"]
    good = [row["workers"] for row in rows if row["efficiency_attempts"] >= 0.9]
    fair = [row["workers"] for row in rows if row["efficiency_without_stragglers"] >= 0.9]
    return {
        "times_s": {**times.__dict__, "sigma": SIGMA, "driver": DRIVER, "load": LOAD},
        "stragglers": STRAGGLERS,
        "failures": FAILURES,
        "most_workers_at_90_percent": max(good, default=0),
        "and_without_stragglers": max(fair, default=0),
        "rows": [{name: round(value, 4) for name, value in row.items()} for row in rows],
    }


CURVES = {
    "efficiency_without_stragglers": "even",
    "efficiency_attempts": "attempts",
    "efficiency_writing": "writing",
    "efficiency_turn": "turn",
}
STYLE = (
    "<style>text{font:11px sans-serif}.grid{stroke:#ddd}.axis{stroke:#444}path{fill:none;stroke-width:2}"
    ".even{stroke:#1a7f37}.attempts{stroke:#1f6feb}.writing{stroke:#b45309}.turn{stroke:#57606a}</style>"
)


def plot(rows: Sequence[dict[str, float]]) -> str:
    """Efficiency over the number of workers as an SVG drawing."""
    most = math.log2(rows[-1]["workers"]) or 1.0
    x = svg.Axis(0, most, svg.LEFT, svg.RIGHT)
    y = svg.Axis(0, 1, svg.BOTTOM, svg.TOP)
    parts = [svg.y_axis(y, "efficiency", svg.percent_tick)]
    places = [math.log2(row["workers"]) for row in rows]
    parts.append(svg.x_axis(x, "workers", lambda at: f"{2**at:g}", places))
    for place, (key, name) in enumerate(CURVES.items()):
        points = [(x.at(at), y.at(row[key])) for at, row in zip(places, rows, strict=True)]
        parts += [
            svg.path(points, name),
            svg.text(svg.LEFT + 8, svg.BOTTOM - 44 + 16 * place, name, "", "start"),
        ]
        parts.append(
            svg.line(
                svg.LEFT + 60, svg.BOTTOM - 48 + 16 * place, svg.LEFT + 90, svg.BOTTOM - 48 + 16 * place, name
            )
        )
    drawn = svg.svg(STYLE + "".join(parts), "Efficiency by workers", "Simulated, see benchmarks/scale.py")
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=HERE / "scale.json")
    given = parser.parse_args()
    found = study(paper_times())
    given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    given.out.with_suffix(".svg").write_text(plot(found["rows"]), encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
