"""Where a lesson of the factory is done: here on a CPU, apart on GPUs, by accelerate where that is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FakeWorkers, small_config

from selfdev.errors import SelfdevError
from selfdev.factory import check, dpo
from selfdev.factory.training import check_training, trainer
from selfdev.interrupt import Stop
from selfdev.progress import Bars
from selfdev.records import Lessons
from selfdev.results import DpoStep, FactoryCheck, Trained, factory_check
from selfdev.run import run_config
from selfdev.workers.devices import VISIBLE

LOG = (DpoStep(1, 0.5, 0.1, 1.0),)
CHECK = factory_check(1, 0, 0, 0, None, None)
Tell = Callable[[int, int], None]


@dataclass
class Places:
    """What was done, in order: `here`, or `apart` by which config and with which GPUs to see."""

    done: list[tuple[Any, ...]] = field(default_factory=list)


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Places:
    found = Places()

    def train(*given: Any) -> tuple[DpoStep, ...]:
        given[-1](1, 1)
        found.done.append(("train", "here", given[-2]))
        return LOG

    def look(*given: Any) -> FactoryCheck:
        found.done.append(("look", "here", given[-2]))
        return CHECK

    def apart(
        work: Callable[..., Any], args: tuple[Any, ...], tell: Tell, file: Path | None,
        seen: Mapping[str, str],
    ) -> Any:  # fmt: skip
        tell(1, 1)
        found.done.append((work.__name__, "apart", args[-1], file and str(file), seen[VISIBLE]))
        return LOG if work is train else CHECK

    monkeypatch.setattr(dpo, "train", train)
    monkeypatch.setattr(check, "look", look)
    monkeypatch.setattr("selfdev.factory.training.apart", apart)
    return found


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv(VISIBLE, raising=False)


@dataclass
class Resting(FakeWorkers):
    """Notes when the workers are sent home; nobody asks for a stop."""

    places: Places = field(default_factory=Places)

    def stop_if_asked(self) -> None: ...

    def rest(self) -> None:
        self.places.done.append(("rest",))


def lesson(places: Places, workers: FakeWorkers | None = None, **config: Any) -> Trained:
    train = trainer(
        small_config(**config), Path("first"), Bars(lambda *_: None), workers or Resting(places=places)
    )
    return train(Path("start"), Path("iteration_2"), Lessons(()), 3)


def test_on_a_cpu_it_is_done_here_while_the_workers_stay(places: Places) -> None:
    assert lesson(places, device="cpu") == Trained(LOG, CHECK)
    assert places.done == [("train", "here", "cpu"), ("look", "here", "cpu")]


def test_on_gpus_it_has_the_first_one_once_the_workers_are_gone(places: Places, two_gpus: None) -> None:  # noqa: ARG001
    assert lesson(places) == Trained(LOG, CHECK)
    assert places.done == [
        ("rest",), ("train", "apart", "cuda", None, "0"), ("look", "apart", "cuda", None, "0")
    ]  # fmt: skip


def test_accelerate_trains_on_all_gpus_and_one_is_looked_at(places: Places, two_gpus: None) -> None:  # noqa: ARG001
    lesson(places, dpo={"accelerate": "two.yaml"})
    assert places.done[1:] == [
        ("train", "apart", "cuda", "two.yaml", "0,1"), ("look", "apart", "cuda", None, "0")
    ]  # fmt: skip


def test_a_stop_is_noticed_at_a_step(places: Places) -> None:
    class Stopping(FakeWorkers):
        def stop_if_asked(self) -> None:
            raise Stop

    with pytest.raises(Stop):
        lesson(places, Stopping(), device="cpu")
    assert places.done == []


def test_a_config_of_accelerate_is_looked_at_before_anything_is_done(tmp_path: Path) -> None:
    missing = small_config(dpo={"accelerate": str(tmp_path / "none.yaml")})
    with pytest.raises(SelfdevError, match=r"dpo\.accelerate .*none\.yaml is no config of accelerate"):
        run_config(missing, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    three = tmp_path / "three.yaml"
    three.write_text("num_processes: 3\n")
    with pytest.raises(SelfdevError, match=r"dpo\.batch is 8, which 3 processes .* a multiple of 6"):
        check_training(small_config(dpo={"accelerate": str(three)}))
    check_training(small_config(dpo={"accelerate": str(three), "batch": 6}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"objective": "grpo", "accelerate": "x.yaml"},
            "a whole batch in one process, and accelerate is given",
        ),
        ({"objective": "grpo", "micro_batch": 2}, "in one process, and micro_batch is given; remove it"),
        ({"objective": "kto", "micro_batch": 2}, "objective is kto, which compares .* micro_batch is given"),
        ({"batch": 8, "micro_batch": 3}, "batch is 8 and micro_batch 3; make batch a multiple of it"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SelfdevError, match=said):
        small_config(dpo=changes)
