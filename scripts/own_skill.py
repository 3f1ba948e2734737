"""How well the lab's skilled experts do what they were trained for, by their own answers to dev questions.

python scripts/own_skill.py                       # the built-in families
python scripts/own_skill.py FOLDER --split test   # one made by selfdev lab build
"""

from __future__ import annotations

import argparse
from pathlib import Path

from selfdev.api import model_path
from selfdev.checkpoints import open_checkpoint, tensor
from selfdev.config.config import load_config
from selfdev.engine.engine import Engine
from selfdev.engine.scorer import prepare, score
from selfdev.lab.recipes import EXPERTS_A
from selfdev.tasks.tasks import load_task

LAB = load_config(Path(__file__).parents[1] / "configs" / "lab.yaml").task


def main() -> None:
    """One line per expert: accuracy on its own skill, with its interval and n."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--questions", type=int, default=600)
    given = parser.parse_args()
    questions = load_task("lab").split(given.split)
    for folder in given.folders or [model_path(f"lab:{family}/seed").parent for family in "ab"]:
        engine = Engine(folder / "seed")
        for expert in EXPERTS_A:
            asked = [q for q in questions if q.skill in expert.skills][: given.questions]
            if not asked:
                continue
            slots = open_checkpoint(folder / expert.name, expert.name).slots
            weights = {name: tensor(slot) for name, slot in slots.items() if name in engine.names}
            found = score(engine, prepare(engine, asked, LAB.max_new_tokens, LAB.batch), weights)
            low, high = found.interval
            print(
                f"{folder} {expert.name:8} {found.accuracy:.3f} [{low:.3f}, {high:.3f}] n = {found.n}",
                flush=True,
            )


if __name__ == "__main__":
    main()
