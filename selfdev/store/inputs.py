"""What a run rests on: model files and questions, which must stay the same from first to last attempt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from selfdev.checkpoints import Checkpoint
from selfdev.errors import SelfdevError
from selfdev.store import hashes
from selfdev.store.archive import Archive
from selfdev.tasks.tasks import Task


class Files:
    """The weight files of models as they are now, by size and time: a look at them costs nothing."""

    def __init__(self, models: Iterable[Checkpoint]) -> None:
        found = {model.name: sorted(model.path.glob("*.safetensors")) for model in models}
        self._marks = {path: (name, _mark(path)) for name, paths in found.items() for path in paths}

    def check(self) -> None:
        """SelfdevError when a file is gone or another one than it was."""
        for path, (name, mark) in self._marks.items():
            now = _mark(path)
            if now != mark:
                what = "changed" if now else "was deleted"
                raise SelfdevError(
                    f"{name}: {path} {what} while programs were tried on it; put back what it was and give"
                    " the same command again, every finished attempt is kept."
                )


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def settle_inputs(task: Task, models: Sequence[Checkpoint], archive: Archive) -> None:
    """Keep the hashes of a new run's models and questions; SelfdevError when those of an older one differ."""
    now = {f"model {model.name} ({model.path})": hashes.of_weights(model.path) for model in models}
    now[f"task {task.name}"] = _of_questions(task)
    kept = archive.get("inputs")
    if kept is None:
        archive.put("inputs", json.dumps(now))
        return
    for (name, old), new in zip(json.loads(kept).items(), now.values(), strict=True):
        if old != new:
            raise SelfdevError(
                f"{name} is not what the run began with; put that back, or give another --out for a new run."
            )


def _of_questions(task: Task) -> str:
    digest = hashlib.sha256()
    for question in (*task.dev, *task.test):
        digest.update(json.dumps([question.prompt, question.answer]).encode())
    return digest.hexdigest()
