"""mergekit and lm-evaluation-harness in an environment of their own; the harness on questions of the lab."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import venv
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from common import Ran, watched

from selfdev.tasks.tasks import STOPS

if TYPE_CHECKING:
    from selfdev.tasks.questions import Question

PEERS = Path(__file__).with_name(".peers")
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
SCRIPT = Path(__file__).parents[1] / "scripts" / "harness_agreement.py"
BATCH = 64  # larger ones were no faster on the lab's models


def commands() -> Path:
    """The folder of the peers' commands, installed at first use: the same torch and transformers as ours."""
    torch = "torch==" + metadata.version("torch").partition("+")[0]
    wanted, stamp = torch + "\n" + CONSTRAINTS.read_text(encoding="utf-8"), PEERS / "installed"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"installing mergekit and lm-evaluation-harness into {PEERS}", flush=True)
        shutil.rmtree(PEERS, ignore_errors=True)
        venv.create(PEERS, with_pip=True)
        words = ["-m", "pip", "install", "--quiet", "-c", str(CONSTRAINTS), torch, "mergekit", "lm_eval[hf]"]
        subprocess.run([PEERS / "bin" / "python", *words], check=True)
        stamp.write_text(wanted, encoding="utf-8")
    return PEERS / "bin"


def version(peer: str) -> dict[str, str]:
    """The version of a peer in that environment, by its name."""
    commands()
    packages = [str(path) for path in PEERS.glob("lib/*/site-packages")]
    return {peer: next(iter(metadata.distributions(name=peer, path=packages))).version}


def write_task(folder: Path, questions: Sequence[Question]) -> None:
    """The task selfdev_lab and its questions."""
    file = folder / "questions.jsonl"
    rows = [json.dumps({"prompt": q.prompt, "answer": q.answer}) for q in questions]
    file.write_text("\n".join(rows), encoding="utf-8")
    task: str = runpy.run_path(str(SCRIPT))["TASK"]
    (folder / "task.yaml").write_text(task.format(file=file, stops=json.dumps(STOPS)), encoding="utf-8")


def lm_eval(model: Path, folder: Path) -> Ran:
    """Its command line on a model and the task in `folder`, in float32 on the CPU."""
    command = commands() / "lm_eval"
    words: list[str | Path] = [command, "--model", "hf", "--tasks", "selfdev_lab", "--device", "cpu"]
    words += ["--model_args", f"pretrained={model},dtype=float32", "--include_path", folder]
    return watched([*words, "--batch_size", str(BATCH)], {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
