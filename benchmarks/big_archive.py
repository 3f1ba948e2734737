"""A run of 100,000 attempts: how soon it goes on, in what memory, and how long report and queries take.

    python benchmarks/big_archive.py                     # writes benchmarks/big_archive.json
    python benchmarks/big_archive.py --attempts 2000 --out small.json

The attempts are synthetic: texts of about 1.2 kB, of which a third are scored on 100 questions, a sixth
behave like an earlier one, and the rest failed. All iterations but the last are over; of the last half the
programs have no end yet. "resume" is a process of its own, from the opening of the archive to the first job
that is handed to a worker; importing torch and opening models, which have nothing to do with the archive, are
not in it. Its "mb_of_archive" is what the process has at most beyond its imports.

Wall time counts only on an idle machine, so CPU time and the load stand beside it. Asked are: resume below
2 s and 300 MB, report below 10 s, each query below 10 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfdev.config.config import Config, parse_config
from selfdev.interrupt import Stop
from selfdev.loop import run_loop, try_attempts
from selfdev.records import Outcome, Score, State
from selfdev.results import DpoStep, Trained, factory_check
from selfdev.run import report
from selfdev.store.archive import Archive
from selfdev.store.folder import open_archive
from selfdev.workers.workers import Probed, Tried, Workers

OUT = Path(__file__).parent / "big_archive.json"
ITERATIONS = 10
QUESTIONS = 100
LIMITS = {"resume_seconds": 2.0, "resume_mb": 300.0, "report_seconds": 10.0, "query_ms": 10.0}


def config_of(attempts: int) -> Config:
    """A run of so many programs."""
    return parse_config(
        {
            "name": "big",
            "models": {"seed": "seed", "experts": {"one": "one"}},
            "task": {"name": "lab", "dev": QUESTIONS},
            "factory": {"programs": attempts // ITERATIONS, "iterations": ITERATIONS},
        },
        "big_archive",
    )


def fill(folder: Path, attempts: int) -> float:
    """Write the archive; returns the seconds that one stored result takes."""
    rng = random.Random(0)
    config, per_turn = config_of(attempts), attempts // ITERATIONS
    spent = 0.0
    with open_archive(folder) as archive:
        archive.put("config", config.model_dump_json())
        for turn in range(1, ITERATIONS + 1):
            texts = [
                f"def merge_models(models, device):\n    # {n}\n" + "    x = 1\n" * 120
                for n in range(per_turn)
            ]
            archive.add_written("factory", turn, [""] * per_turn, texts, range(per_turn))
            (folder / "factory" / f"iteration_{turn}").mkdir(parents=True)
            ended = per_turn if turn < ITERATIONS else per_turn // 2
            began = time.perf_counter()
            for attempt in list(archive.each("factory", turn))[:ended]:
                end(archive, attempt, rng)
            spent += time.perf_counter() - began
            if turn < ITERATIONS:
                trained = Trained((DpoStep(1, 0.5, 0.1, 1.0),), factory_check(10, 0, 0, 0, None, None))
                archive.add_training(turn, trained, "hash")
    return spent / attempts


def end(archive: Archive, attempt: Any, rng: random.Random) -> None:
    """Give one attempt an end."""
    luck = rng.random()
    merged = Outcome(State.MERGED, seconds=1.0, weights_hash="0" * 64)
    if luck > 0.5:
        state = rng.choice((State.INVALID, State.CRASHED, State.TIMED_OUT, State.BAD_WEIGHTS))
        archive.set_probe(replace(attempt, outcome=Outcome(state, f"line 3: reason {rng.randrange(9)}")))
        return
    seen = f"print {attempt.id}"
    archive.set_probe(
        replace(attempt, code=attempt.text, outcome=merged, fingerprint=seen, nearest="ties", distance=0.1)
    )
    answers = tuple(rng.random() < 0.6 for _ in range(QUESTIONS))
    archive.set_result(attempt.id, merged, Score(answers, answers), same_as=1 if luck > 1 / 3 else None)


class Stopping(Workers):
    """Workers whose first job ends the run: it was resumed."""

    def __init__(self) -> None:
        """Nothing is started."""

    def probe(self, jobs: Iterable[Any], *_: Any) -> Iterator[Any]:
        for _job in jobs:
            raise Stop
        return iter(())

    def try_programs(self, jobs: Iterable[Any], *given: Any) -> Iterator[Any]:
        return self.probe(jobs, *given)


class Instant(Workers):
    """Workers that take no time: what is left is the loop's and the archive's own."""

    def __init__(self) -> None:
        """Nothing is started."""

    def probe(self, jobs: Iterable[Any], *_: Any) -> Iterator[tuple[int, Probed]]:
        for place, (text, _seed) in enumerate(jobs):
            yield place, Probed(text, Outcome(State.MERGED), f"new print {place}", "ties", 0.1)

    def try_programs(self, jobs: Iterable[Any], *_: Any) -> Iterator[tuple[int, Tried]]:
        answers = (True, False) * (QUESTIONS // 2)
        for place, _job in enumerate(jobs):
            yield place, Tried(Outcome(State.MERGED, weights_hash="0" * 64), Score(answers, answers))


def per_attempt(attempts: int, new: int = 200) -> float:
    """Seconds of loop and archive for each of so many new attempts, in a run that has `attempts`."""
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), attempts)
        with open_archive(Path(folder)) as archive:
            texts = ["def merge_models(models, device):\n" + "    x = 1\n" * 120] * new
            archive.add_written("factory", ITERATIONS + 1, [""] * new, texts, range(new))
            began = time.perf_counter()
            try_attempts("factory", ITERATIONS + 1, archive, Instant(), silent)
            return (time.perf_counter() - began) / new


def resumed(folder: Path, attempts: int) -> dict[str, float]:
    """Seconds until the loop hands out a job again, and MB of this process: all, and beyond its imports."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, busy = time.perf_counter(), time.process_time()
    with open_archive(folder) as archive:
        config, workers, train = config_of(attempts), Stopping(), untrained
        with contextlib.suppress(Stop):
            run_loop(config, Path("seed"), folder / "factory", archive, workers, train, silent)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - busy,
        "mb": after / 1024,
        "mb_of_archive": (after - before) / 1024,
    }


def untrained(*_: object) -> Trained:
    raise AssertionError("every training is in the archive")


def silent(results: Iterable[Any], stage: str, total: int) -> Iterator[Any]:  # noqa: ARG001
    return iter(results)


def queries(archive: Archive, attempts: int) -> dict[str, float]:
    """Milliseconds of what the loop asks for each attempt or job: the median of 20 times."""
    last = ITERATIONS
    asked: dict[str, Callable[[], object]] = {
        "attempt by id": lambda: archive.attempt(attempts // 2),
        "unfinished of an iteration": lambda: archive.unfinished("factory", last),
        "anything of an iteration": lambda: archive.has("factory", last),
        "questions asked": lambda: archive.asked("factory"),
        "count of attempts": lambda: archive.count("factory"),
        "training of an iteration": lambda: archive.training(1),
    }
    return {name: round(1000 * _median(query), 3) for name, query in asked.items()}


def _median(query: Callable[[], object]) -> float:
    times = []
    for _ in range(20):
        began = time.perf_counter()
        query()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure(folder: Path, attempts: int) -> dict[str, Any]:
    """All figures of an archive of so many attempts, made in `folder`."""
    stored = fill(folder, attempts)
    command = [sys.executable, __file__, "--attempts", str(attempts), "--resume", str(folder)]
    resume = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    with open_archive(folder) as archive:
        began, busy = time.perf_counter(), time.process_time()
        report(folder, archive)
        reported, computed = time.perf_counter() - began, time.process_time() - busy
        asked = queries(archive, attempts)
    return {
        "attempts": attempts,
        "archive_mb": round((folder / "archive.sqlite").stat().st_size / 2**20, 1),
        "stored_result_ms": round(1000 * stored, 3),
        "resume": {name: round(value, 2) for name, value in resume.items()},
        "report_seconds": round(reported, 2),
        "report_cpu_seconds": round(computed, 2),
        "queries_ms": asked,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--attempts", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--resume", type=Path, help="only resume the run in this folder (for the benchmark itself)"
    )
    given = parser.parse_args()
    if given.resume:
        print(json.dumps(resumed(given.resume, given.attempts)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), given.attempts)
    machine = {"platform": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count()}
    found = {"machine": {**machine, "load": round(os.getloadavg()[0], 2)}, "limits": LIMITS, **found}
    given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
