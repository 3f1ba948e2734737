"""Six claims about the loop, measured on the lab over several searches; writes EVIDENCE.md.

    python scripts/evidence.py --out runs/evidence                         (a hundred minutes on two cores)
    python scripts/evidence.py --out runs/evidence --stages arena,runs,learning    (an hour)

Stages: `arena` is selfdev lab check; `runs` the searches of configs/lab.yaml with seeds 0, 1, ...; `learning`
fresh programs of each run's factories and of the untrained one at equal temperature; `controls` the searches
without learning at the same budget; `transfer` the finalists on family b. What a folder holds is not done
again, and a claim whose stage has not run is said to be open.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from selfdev.collect import finished_archive
from selfdev.config.config import load_config
from selfdev.evidence.compare import compare
from selfdev.evidence.evidence import Evidence, Search, page
from selfdev.evidence.learning import learn
from selfdev.evidence.transfer import transfer_run
from selfdev.lab.check import check
from selfdev.run import run_config

STAGES = ("arena", "runs", "learning", "controls", "transfer")
CONTROLS = ("untrained", "prompted", "generator", "cma task_arithmetic", "cma task_arithmetic by layer")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do and where: `programs` are the fresh ones of each factory and temperature."""

    out: Path
    seeds: int
    stages: tuple[str, ...]
    controls: tuple[str, ...]
    programs: int
    config: str
    away: str


def arena(plan: Plan) -> dict[str, Any] | None:
    """The lab's own check, done once."""
    kept = plan.out / "lab_check.json"
    if "arena" in plan.stages and not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(asdict(check("a"))))
    return json.loads(kept.read_text()) if kept.is_file() else None


def searched(plan: Plan, seed: int) -> Search | None:
    """One search and what was set beside it; None where it has not been run."""
    folder = plan.out / f"seed_{seed}"
    config = load_config(plan.config, [f"seed={seed}"])
    if "runs" not in plan.stages and not (folder / "best").is_dir():
        return None
    result = run_config(config, folder)
    with finished_archive(folder) as archive:
        answers = archive.examined("test")
    learned, compared, moved = folder / "learning", folder / "compare", folder / "transfer"
    measured = comparison = away = None
    if "learning" in plan.stages or learned.is_dir():
        measured = learn(config, folder, learned, plan.programs)
    if "controls" in plan.stages or (compared / "comparison.json").is_file():
        comparison = compare(folder, compared, plan.controls, fresh=0)
    if "transfer" in plan.stages or moved.is_dir():
        away = transfer_run(folder, load_config(plan.away), moved)
    return Search(seed, result, answers, measured, comparison, away)


def machine() -> str:
    """Where the figures were made, for the page."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl"))
    model = next(
        (
            x.split(":")[1].strip()
            for x in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in x
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}, {packages}"


def gather(plan: Plan) -> Evidence:
    """Stage by stage over all seeds, so that an interrupted script has the first claims whole."""
    found: list[Search | None] = [None] * plan.seeds
    checked = None
    for stage in plan.stages:
        until = replace(plan, stages=plan.stages[: plan.stages.index(stage) + 1])
        checked = arena(until)
        if stage != "arena":
            found = [searched(until, seed) for seed in range(plan.seeds)]
        write(plan, Evidence(checked, tuple(s for s in found if s is not None), machine()))
    return Evidence(checked, tuple(s for s in found if s is not None), machine())


def write(plan: Plan, evidence: Evidence) -> None:
    """The page, beside what it was made from."""
    draft = plan.out / "EVIDENCE.md.part"
    draft.write_text(page(evidence, time.strftime("%Y-%m-%d")), encoding="utf-8")
    draft.replace(plan.out / "EVIDENCE.md")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--controls", default=",".join(CONTROLS))
    parser.add_argument("--programs", type=int, default=256)
    parser.add_argument("--config", default="configs/lab.yaml")
    parser.add_argument("--away", default="configs/lab_b.yaml")
    a = parser.parse_args()
    stages = tuple(stage for stage in STAGES if stage in a.stages.split(","))
    plan = Plan(a.out, a.seeds, stages, _words(a.controls), a.programs, a.config, a.away)
    print(page(gather(plan), time.strftime("%Y-%m-%d")))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


if __name__ == "__main__":
    main()
