"""Racing replayed on the answers of a run that asked every program every dev question.

    selfdev run configs/lab.yaml --out runs/full --set task.dev=400 --set task.first_block=0
    python scripts/racing_replay.py runs/full

Draws 1,000 orders of the questions and prints, for several first blocks, how often the finalists are those of
the full evaluation, and at which share of the questions.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from selfdev.collect import config_of, finished_archive
from selfdev.engine.engine import Engine
from selfdev.engine.scorer import prepare, score
from selfdev.errors import SelfdevError
from selfdev.evidence.replay import Recorded, replay
from selfdev.loop import scored
from selfdev.run import open_models, questions_of
from selfdev.stats import wilson
from selfdev.tasks.questions import exam_questions


def recorded(folder: Path) -> tuple[Recorded, int, int]:
    """The answers of a run's distinct programs, its finalists, and how many set the bar."""
    with finished_archive(folder) as archive:
        config = config_of(folder, archive)
        attempts = [a for a in scored(archive.attempts("factory")) if not a.same_as and not a.outcome.copy_of]
    dev = config.task.dev
    results = [a.score.leading for a in attempts if a.score is not None]
    if config.task.first_block or any(len(one) < dev for one in results):
        raise SelfdevError(f"{folder} stopped programs early; give a run with task.first_block = 0.")
    task, sizes = questions_of(config), {"dev": dev, "finalist_dev": 0, "test": 1}
    engine = Engine(open_models(config).seed.path)
    exam = prepare(
        engine, exam_questions(task, "dev", sizes), config.task.max_new_tokens, config.task.batch,
        stops=task.stops, grader=task.grader, lead=config.task.grading, chat=config.task.chat,
        source=task.source, split="dev",
    )  # fmt: skip
    seed = score(engine, exam, {}).accuracy
    found = Recorded(np.array(results), tuple(a.iteration for a in attempts), seed)
    return found, config.finalists, max(config.pairs.min_each, config.finalists)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--replays", type=int, default=1000)
    arguments = parser.parse_args()
    found, finalists, kept = recorded(arguments.run)
    for first in (10, 16, 25, 50):
        result = replay(found, first, kept, finalists, arguments.replays, seed=0)
        low, high = wilson(result.same, result.replays)
        shown = {
            "programs": len(found.right), "questions": found.right.shape[1], "first_block": first,
            **asdict(result), "same_finalists": result.same / result.replays, "low": low, "high": high,
        }  # fmt: skip
        print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    main()
