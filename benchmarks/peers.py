"""lm-evaluation-harness on questions of the lab, as its command line runs."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common import Ran, watched

from selfdev.tasks.tasks import STOPS

if TYPE_CHECKING:
    from selfdev.tasks.questions import Question

SCRIPT = Path(__file__).parents[1] / "scripts" / "harness_agreement.py"
BATCH = 64  # larger ones were no faster on the lab's models


def write_task(folder: Path, questions: Sequence[Question]) -> None:
    """The task selfdev_lab and its questions."""
    file = folder / "questions.jsonl"
    rows = [json.dumps({"prompt": q.prompt, "answer": q.answer}) for q in questions]
    file.write_text("\n".join(rows), encoding="utf-8")
    task: str = runpy.run_path(str(SCRIPT))["TASK"]
    (folder / "task.yaml").write_text(task.format(file=file, stops=json.dumps(STOPS)), encoding="utf-8")


def lm_eval(model: Path, folder: Path) -> Ran:
    """Its command line on a model and the task in `folder`, in float32 on the CPU."""
    command = Path(sys.executable).with_name("lm_eval")
    words: list[str | Path] = [command, "--model", "hf", "--tasks", "selfdev_lab", "--device", "cpu"]
    words += ["--model_args", f"pretrained={model},dtype=float32", "--include_path", folder]
    return watched([*words, "--batch_size", str(BATCH)], {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
