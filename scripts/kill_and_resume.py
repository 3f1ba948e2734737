"""Kills a small run of the lab with SIGKILL, again and again, and compares its end with an untouched one.

    python scripts/kill_and_resume.py --kills 200

Each time the driver or one of its processes (a worker, the server of a sandbox) is killed at a random moment;
where that ended the run its command is given again. When the run is over its archive must hold the same
attempts, scores, pairs and answers as the untouched run, its factories the same weights. Then the next run
begins, until there were enough kills.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfdev.records import Attempt
from selfdev.store.archive import Archive

SMALL = (
    "factory.programs=12", "factory.iterations=2", "task.dev=24", "task.finalist_dev=24", "task.test=24",
    "task.first_block=0", "finalists=3", "pairs.min_each=2", "workers=2",
)  # fmt: skip


def command(config: Path, folder: Path) -> list[str]:
    """The run's command."""
    overrides = [word for value in SMALL for word in ("--set", value)]
    return [sys.executable, "-m", "selfdev", "run", str(config), "--out", str(folder), "--json", *overrides]


def start(config: Path, folder: Path) -> subprocess.Popen[bytes]:
    """The run, begun or gone on with."""
    return subprocess.Popen(
        command(config, folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def family(pid: int) -> list[int]:
    """A process and its children, from the kernel; their own children belong to a sandbox."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def found_in(folder: Path) -> dict[str, Any]:
    """All that must be the same, whatever happened on the way."""
    archive = Archive(folder / "archive.sqlite")
    found = {
        "attempts": [_timeless(attempt) for attempt in archive.attempts()],
        "pairs": [archive.pairs(t) for t in (1, 2)],
        "training": [archive.training(t) for t in (1, 2)],
        "factories": archive.factories(),
        "finalist_dev": archive.examined("finalist_dev"),
        "test": archive.examined("test"),
        "best": archive.get("best"),
    }
    archive.close()
    return found


def _timeless(attempt: Attempt) -> Attempt:
    return replace(attempt, outcome=replace(attempt.outcome, seconds=0.0, stderr=""))


def go_through(config: Path, folder: Path, length: float, kills: int, rng: random.Random) -> int:
    """One run to its end, killed on the way at most `kills` times; returns how many kills there were."""
    done = 0
    while True:
        process = start(config, folder)
        while done < kills and process.poll() is None:
            time.sleep(rng.uniform(0.0, length / 3))
            if process.poll() is None:
                victim = rng.choice(family(process.pid))
                try:
                    os.kill(victim, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                done += 1
        _, errors = process.communicate()
        if process.returncode == 0:
            return done
        if process.returncode != -signal.SIGKILL:
            raise SystemExit(f"the run ended with {process.returncode}: {errors.decode()[-2000:]}")


def main() -> None:
    """Run, kill, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/lab.yaml"))
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--each", type=int, default=8, help="most kills of one run")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.monotonic()
        whole = Path(scratch) / "untouched"
        if start(args.config, whole).wait():
            raise SystemExit("the untouched run failed; give its command by hand to see why")
        length, expected, kills, runs = time.monotonic() - begin, found_in(whole), 0, 0
        while kills < args.kills:
            folder = Path(scratch) / f"run-{runs}"
            kills += go_through(args.config, folder, length, min(args.each, args.kills - kills), rng)
            runs += 1
            found = found_in(folder)
            for name, value in expected.items():
                if found[name] != value:
                    raise SystemExit(f"after {kills} kills {name} of run {runs} is not that of the untouched")
            print(f"{kills} kills, {runs} runs: the same archive and weights", flush=True)


if __name__ == "__main__":
    main()
