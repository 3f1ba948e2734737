"""A recorded run again, through the real scheduler with 1 to 512 simulated workers (see scale.py).

    python benchmarks/scale_replay.py runs/demo        # writes benchmarks/scale_replay.json

The archive tells how long each program ran and how many questions it was asked. What a question took follows
from the stage: its seconds times the run's workers, less what the programs took, over all questions asked.
Batches of programs and probes get equal parts of theirs. A new worker loads as long as the first batch was
written later than in the turn after; the driver takes 0.5 ms per result, three times what storing one takes
(big_archive.json). So the simulated run of as many workers as were
recorded has to take about what the real one took ("recorded_s" beside "again_s", the mean over turns).
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from scale import FAILURES, WORKERS, Work, scheduled

from selfdev.collect import config_of, finished_archive
from selfdev.config.config import Config
from selfdev.cost import stage_seconds
from selfdev.store.archive import Archive

DRIVER = 0.0005  # seconds per result
OUT = Path(__file__).parent / "scale_replay.json"


def recorded(config: Config, archive: Archive) -> list[Work]:
    """The times of every turn of a run."""
    spent, work = stage_seconds(archive), []
    for iteration in range(1, config.factory.iterations + 1):
        label = f"iteration {iteration}"
        attempts = archive.attempts("factory", iteration)
        own = [a for a in attempts if a.same_as is None]
        programs = [(a.outcome.seconds, a.score.n if a.score else 0) for a in own if a.fingerprint]
        scoring = spent[f"{label}: run and score"] * config.workers - sum(s for s, _ in programs)
        each = max(0.0, scoring) / max(1, sum(n for _, n in programs))
        batches = -(-len(attempts) // config.factory.batch)
        work.append(
            Work(
                [spent[f"{label}: write"] * config.workers / batches] * batches,
                [spent[f"{label}: gate and probes"] * config.workers / len(attempts)] * len(attempts),
                [seconds + n * each for seconds, n in programs],
                spent[f"{label}: DPO"],
            )
        )
    return work


def study(config: Config, archive: Archive) -> dict[str, Any]:
    """Efficiency and time per turn at every number of workers, with deaths and, as recorded, without."""
    work, spent = recorded(config, archive), stage_seconds(archive)
    load = max(0.0, spent["iteration 1: write"] - spent.get("iteration 2: write", 0.0))
    asked = [spent[f"iteration {turn}: run and score"] for turn in range(1, len(work) + 1)]
    again = [scheduled(turn, config.workers, 0.0, load=load, driver=DRIVER)["attempts_s"] for turn in work]
    rows = []
    for workers in WORKERS:
        turns = [scheduled(turn, workers, load=load, driver=DRIVER) for turn in work]
        rows.append({key: round(statistics.fmean(t[key] for t in turns), 4) for key in turns[0]})
    return {
        "run": {"workers": config.workers, "programs": config.factory.programs, "turns": len(work)},
        "driver_s": DRIVER,
        "load_s": round(load, 2),
        "failures": FAILURES,
        "recorded_s": round(statistics.fmean(asked), 2),
        "again_s": round(statistics.fmean(again), 2),
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    with finished_archive(given.run) as archive:
        found = study(config_of(given.run, archive), archive)
    given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
