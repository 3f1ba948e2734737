"""Real runs in which winners become seeds: what is merged, what is written, and going on after a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from writing_family import build
from writing_run import rows, settings

from selfdev import api
from selfdev.checkpoints import Checkpoint, open_checkpoint, tensor
from selfdev.results import RunResult
from selfdev.run import run_config
from selfdev.store.archive import Archive


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("writing"))


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    folder = tmp_path_factory.mktemp("runs") / "line"
    return folder, run_config(settings(root, promote="best"), folder)


def made_by(code: str, seed: Checkpoint, experts: list[Checkpoint]) -> dict[str, torch.Tensor]:
    """What a program makes of these models, and the seed's other parameters."""
    named = [seed, *experts]
    models = {m.name: {k: tensor(s) for k, s in m.slots.items() if ".mlp." in k} for m in named}
    space: dict[str, Any] = {"torch": torch}
    exec(code, space)
    merged: dict[str, torch.Tensor] = space["merge_models"](models, "cpu")
    return {name: merged.get(name, tensor(slot)) for name, slot in seed.slots.items()}


def opened(root: Path) -> tuple[Checkpoint, list[Checkpoint]]:
    return open_checkpoint(root / "seed", "seed"), [open_checkpoint(root / n, n) for n in ("good", "bad")]


def test_the_winner_became_the_seed_of_the_second_iteration(
    root: Path, finished: tuple[Path, RunResult]
) -> None:
    folder, result = finished
    (decided,) = result.promotions
    assert decided.promoted
    promoted = open_checkpoint(folder / "seeds" / "iteration_2", "seed")
    code = (folder / "seeds" / "iteration_2" / "program.py").read_text()
    for name, right in made_by(code, *opened(root)).items():
        torch.testing.assert_close(tensor(promoted.slots[name]), right)
    alone = api.score(promoted.path, str(root / "questions.jsonl"), shots=0, max_new_tokens=2, split="dev")
    assert alone.n == 30  # 10 dev and 20 finalist_dev questions
    assert "became the seed of the next" in "".join(result.notes)


def test_the_same_behaviour_on_another_seed_is_another_program(finished: tuple[Path, RunResult]) -> None:
    archive = Archive(finished[0] / "archive.sqlite")
    first, second = (archive.attempts("factory", t) for t in (1, 2))
    archive.close()
    assert not any(":" in (a.fingerprint or "") for a in first)
    assert all(a.fingerprint.startswith("2:") for a in second if a.fingerprint)
    known = {a.id for a in second}
    assert all(a.same_as in known for a in second if a.same_as)


def test_the_best_model_is_made_of_the_parents_of_its_iteration(
    root: Path, finished: tuple[Path, RunResult]
) -> None:
    folder, result = finished
    seed, experts = opened(root)
    if result.best_name.startswith("program 2."):
        experts.append(open_checkpoint(root / "seed", "seed_1"))
        seed = open_checkpoint(folder / "seeds" / "iteration_2", "seed")
        assert "| seed_1 | seed | local |" in (folder / "best" / "README.md").read_text()
    best = open_checkpoint(folder / "best" / "model", "best")
    for name, right in made_by(result.best_program, seed, experts).items():
        torch.testing.assert_close(tensor(best.slots[name]), right)


def test_a_run_that_died_while_it_promoted_goes_on_to_the_same_result(
    root: Path, finished: tuple[Path, RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = Archive.log

    def dies(self: Archive, what: str, **detail: Any) -> None:
        if what == "promotion":
            raise KeyboardInterrupt
        note(self, what, **detail)

    with monkeypatch.context() as patched:
        patched.setattr(Archive, "log", dies)
        with pytest.raises(KeyboardInterrupt):
            run_config(settings(root, promote="best"), tmp_path / "run")
    assert (tmp_path / "run" / "seeds" / "iteration_2").is_dir()
    again = run_config(settings(root, promote="best"), tmp_path / "run")
    assert again.promotions == finished[1].promotions
    assert again.test == finished[1].test
    assert rows(tmp_path / "run") == rows(finished[0])
