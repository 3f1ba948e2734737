"""The same lesson by other settings: what each variant is taught, who writes, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeTrain, FakeWorkers, silent, small_config

from selfdev.config.config import Config
from selfdev.errors import SelfdevError
from selfdev.evidence.compare import CONTROLS, checked_names
from selfdev.evidence.learning import fresh_config
from selfdev.evidence.lessons import variants, write_variants
from selfdev.loop import run_loop
from selfdev.store.archive import Archive

CONFIG = small_config()
TEXTS = ("dpo.objective=ipo  dpo.beta=0.2", "pairs.rule=same-prompt-halves")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Archive]:
    """A run of the loop, by the paper's rule."""
    (tmp_path / "run").mkdir()
    archive = Archive(tmp_path / "run" / "archive.sqlite", create=True)
    run_loop(CONFIG, Path("seed"), tmp_path / "run", archive, FakeWorkers(), FakeTrain(), silent)
    yield archive
    archive.close()


def write(
    run: Archive, out: Path, workers: FakeWorkers, trains: dict[str, FakeTrain]
) -> dict[str, list[Any]]:
    def train(variant: Config) -> FakeTrain:
        return trains.setdefault(f"{variant.dpo.objective} {variant.pairs.rule}", FakeTrain())

    lessons = variants(CONFIG, TEXTS)
    return write_variants(fresh_config(CONFIG, 20), run, out, Path("seed"), lessons, train, workers, silent)


def test_a_variant_changes_what_its_text_says_and_nothing_else() -> None:
    ipo, halves = variants(CONFIG, TEXTS).values()
    assert (ipo.dpo.objective, ipo.dpo.beta, ipo.pairs) == ("ipo", 0.2, CONFIG.pairs)
    assert (halves.dpo, halves.pairs.rule) == (CONFIG.dpo, "same-prompt-halves")
    assert list(variants(CONFIG, TEXTS)) == ["dpo.objective=ipo dpo.beta=0.2", TEXTS[1]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("factory.programs=3", "lesson 'factory.programs=3' sets 'factory.programs', and a lesson changes"),
        ("dpo.objective=ppo", "--lesson 'dpo.objective=ppo': dpo.objective is 'ppo' and must be"),
        ("dpo.lr=1", "unknown key dpo.lr"),
        ("dpo.objective=rpo", "sft_weight is 0"),
    ],
)
def test_a_lesson_that_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(SelfdevError) as refusal:
        variants(CONFIG, [text])
    assert words in str(refusal.value)


def test_each_variant_teaches_a_copy_of_the_first_factory_the_first_iteration(
    run: Archive, tmp_path: Path
) -> None:
    trains: dict[str, FakeTrain] = {}
    write(run, tmp_path / "out", FakeWorkers(), trains)
    texts = {a.code or a.text for a in run.attempts("factory", 1)}
    pairs = []
    for train in trains.values():
        ((start, out, shown, seed),) = train.calls
        assert (start, out.name, seed) == (Path("seed"), "iteration_2", CONFIG.seed + 1)
        assert {text for pair in shown for text in (pair.chosen, pair.rejected)} <= texts
        pairs.append(shown)
    assert len(pairs) == 2
    recorded = run.pairs(1)
    assert len(pairs[0]) == len(recorded)  # the paper's rule, as the run had it
    assert pairs[0] != pairs[1]


def test_all_write_at_the_second_temperature_by_the_same_numbers(run: Archive, tmp_path: Path) -> None:
    workers = FakeWorkers()
    wrote = write(run, tmp_path / "out", workers, {})
    written = [(path.parent.name, path.name, t, sum(sizes)) for path, _, t, sizes in workers.written]
    assert written == [("", "seed", 1.0, 20), *((name, "iteration_2", 1.0, 20) for name in list(wrote)[1:])]
    texts = [[a.text for a in attempts] for attempts in wrote.values()]
    assert texts[0] == texts[1] == texts[2]  # the fakes write by the numbers alone


def test_what_is_there_is_not_done_again(run: Archive, tmp_path: Path) -> None:
    write(run, tmp_path / "out", FakeWorkers(), {})
    workers, trains = FakeWorkers(), dict[str, FakeTrain]()
    write(run, tmp_path / "out", workers, trains)
    assert (workers.written, workers.tried) == ([], [])
    assert all(not train.calls for train in trains.values())


def test_with_lessons_only_the_controls_that_are_named_run() -> None:
    assert checked_names((), all_of_them=False) == ()
    assert checked_names(()) == CONTROLS
    assert checked_names(("untrained",), all_of_them=False) == ("untrained",)
