"""The loop with workers that decide by the text: what is written, tried, reused, paired, resumed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeTrain, FakeWorkers, Killed, behaviour_of, silent, small_config

from selfdev.config.config import Config
from selfdev.factory import factory
from selfdev.factory.preferences import make_pairs
from selfdev.loop import factory_of, run_loop
from selfdev.records import Attempt, State
from selfdev.store.archive import Archive

CONFIG = small_config()
SEED = Path("the/seed")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = Archive(tmp_path / "archive.sqlite", create=True)
    yield opened
    opened.close()


def run(
    archive: Archive, folder: Path, config: Config = CONFIG, workers: FakeWorkers | None = None,
    train: FakeTrain | None = None,
) -> tuple[FakeWorkers, FakeTrain]:  # fmt: skip
    workers, train = workers or FakeWorkers(), train or FakeTrain()
    run_loop(config, SEED, folder, archive, workers, train, silent)
    return workers, train


def everything(archive: Archive) -> tuple[object, ...]:
    """All that an archive holds of the loop."""
    pairs = [archive.pairs(t) for t in (1, 2, 3)]
    return archive.attempts(), pairs, [archive.training(t) for t in (1, 2, 3)]


def by_behaviour(attempts: list[Attempt]) -> dict[int, list[Attempt]]:
    found: dict[int, list[Attempt]] = {}
    for attempt in attempts:
        found.setdefault(behaviour_of(attempt.text), []).append(attempt)
    return found


def test_every_iteration_writes_its_programs_at_its_temperature(archive: Archive, tmp_path: Path) -> None:
    workers, _ = run(archive, tmp_path)
    assert [row[2] for row in workers.written] == pytest.approx([1.2, 1.0, 1.2 / 1.4])
    assert {row[1] for row in workers.written} == {factory.prompt()}
    assert [row[3] for row in workers.written] == [[7, 7, 7, 7, 2]] * 3
    assert [len(archive.attempts("factory", t)) for t in (1, 2, 3)] == [30, 30, 30]


def test_the_factory_starts_as_the_seed_and_is_refined_after_each_turn_but_the_last(
    archive: Archive, tmp_path: Path
) -> None:
    workers, train = run(archive, tmp_path)
    second, third = tmp_path / "iteration_2", tmp_path / "iteration_3"
    assert [row[0] for row in workers.written] == [SEED, second, third]
    assert [(start, out) for start, out, _, _ in train.calls] == [(SEED, second), (second, third)]
    assert len({seed for *_, seed in train.calls}) == 2


def test_training_may_start_from_the_seed_each_time(archive: Archive, tmp_path: Path) -> None:
    _, train = run(archive, tmp_path, small_config(dpo={"restart": "seed"}))
    assert [start for start, *_ in train.calls] == [SEED, SEED]


def test_texts_stand_at_the_place_of_their_random_numbers(archive: Archive, tmp_path: Path) -> None:
    # The fake gives batches back in reverse order and writes the row's own number into the text.
    run(archive, tmp_path)
    numbers = factory.uniforms(0, 2, 0, 30, 3)
    texts = [a.text for a in archive.attempts("factory", 2)]
    assert [text.split()[2] for text in texts] == [f"{row[1]:.6f}" for row in numbers]


def test_batches_change_nothing(archive: Archive, tmp_path: Path) -> None:
    run(archive, tmp_path)
    other = Archive(tmp_path / "other.sqlite", create=True)
    run(other, tmp_path, small_config(factory={"batch": 30}))
    assert everything(other) == everything(archive)
    other.close()


def test_attempts_have_seeds_of_their_own(archive: Archive, tmp_path: Path) -> None:
    run(archive, tmp_path)
    assert [a.seed for a in archive.attempts("factory", 2)] == [
        factory.program_seed(0, 2, place) for place in range(30)
    ]


def test_every_attempt_ends_in_its_state(archive: Archive, tmp_path: Path) -> None:
    run(archive, tmp_path)
    expected = {0: State.INVALID, 1: State.CRASHED, 2: State.TIMED_OUT}
    attempts = archive.attempts()
    assert {behaviour_of(a.text) for a in attempts} == set(range(12))
    for attempt in attempts:
        behaviour = behaviour_of(attempt.text)
        assert attempt.outcome.state is expected.get(behaviour, State.SCORED)
        if attempt.score is not None:
            assert attempt.score.correct == behaviour
    assert [archive.unfinished("factory", t) for t in (1, 2, 3)] == [set(), set(), set()]


def test_the_same_behaviour_is_run_once_and_its_result_reused(archive: Archive, tmp_path: Path) -> None:
    workers, _ = run(archive, tmp_path)
    runs = [behaviour for _, behaviour, _ in workers.tried]
    assert sorted(runs) == list(range(2, 12))
    for behaviour, alike in by_behaviour(archive.attempts()).items():
        if behaviour >= 2:
            first, *others = alike
            assert first.same_as is None
            assert {a.same_as for a in others} <= {first.id}
            assert {(a.outcome, a.score) for a in others} <= {(first.outcome, first.score)}


def test_programs_that_failed_before_are_not_run(archive: Archive, tmp_path: Path) -> None:
    workers, _ = run(archive, tmp_path)
    assert len(workers.probed) == 90
    assert not {0, 1} & {behaviour for _, behaviour, _ in workers.tried}


def test_everything_is_tried_on_dev(archive: Archive, tmp_path: Path) -> None:
    workers, _ = run(archive, tmp_path)
    assert {exam for *_, exam in workers.tried} == {"dev"}


def test_later_iterations_have_to_reach_what_earlier_ones_keep(archive: Archive, tmp_path: Path) -> None:
    config = small_config(pairs={"min_each": 2})
    workers, _ = run(archive, tmp_path, config)
    kept = max(2, config.finalists)
    assert workers.bars[0] == 0.0
    for iteration in (2, 3):
        earlier = [a for t in range(1, iteration) for a in archive.attempts("factory", t) if a.score]
        best = sorted({a.score.accuracy for a in earlier if a.score}, reverse=True)  # one per behaviour
        assert workers.bars[iteration - 1] == best[kept - 1]


def test_pairs_follow_the_rule_and_reach_the_training(archive: Archive, tmp_path: Path) -> None:
    _, train = run(archive, tmp_path)
    texts = {a.id: a.text for a in archive.attempts()}
    for iteration, (_, _, pairs, _) in enumerate(train.calls, 1):
        stored = archive.pairs(iteration)
        assert stored
        assert [(p.chosen, p.rejected) for p in pairs] == [
            (texts[s.chosen], texts[s.rejected]) for s in stored
        ]
        known = [a for a in archive.attempts("factory") if a.iteration <= iteration]
        rule = make_pairs(known, iteration, CONFIG.pairs, random.Random(0))
        assert {(p.chosen, p.rejected) for p in rule} == {(p.chosen, p.rejected) for p in stored}


def test_no_pairs_no_training_and_the_same_factory(archive: Archive, tmp_path: Path) -> None:
    # A single program leaves nothing to compare.
    workers, train = run(archive, tmp_path, small_config(factory={"programs": 1}))
    assert train.calls == []
    assert [row[0] for row in workers.written] == [SEED] * 3


def test_texts_of_invalid_programs_may_be_rejected_examples(archive: Archive, tmp_path: Path) -> None:
    _, train = run(archive, tmp_path, small_config(pairs={"failures_as_rejected": True}))
    rejected = {behaviour_of(pair.rejected) for pair in train.calls[0][2]}
    assert {0, 1, 2} <= rejected


def test_factory_of_an_iteration_is_the_last_one_trained(tmp_path: Path) -> None:
    (tmp_path / "iteration_2").mkdir()
    assert factory_of(1, SEED, tmp_path) == SEED
    assert factory_of(2, SEED, tmp_path) == tmp_path / "iteration_2"
    assert factory_of(3, SEED, tmp_path) == tmp_path / "iteration_2"


@pytest.mark.parametrize("lives", [0, 1, 4, 5, 6, 20, 36, 40, 45, 60, 80, 99])
def test_a_killed_run_goes_on_to_the_same_archive(archive: Archive, tmp_path: Path, lives: int) -> None:
    whole = Archive(tmp_path / "whole.sqlite", create=True)
    (tmp_path / "whole").mkdir()
    complete, _ = run(whole, tmp_path / "whole")
    with pytest.raises(Killed):
        run(archive, tmp_path, workers=FakeWorkers(lives=lives))
    archive.close()
    again = Archive(tmp_path / "archive.sqlite")
    second, _ = run(again, tmp_path)
    assert everything(again) == everything(whole)
    assert len(second.probed) <= len(complete.probed)
    again.close()
    whole.close()


def test_no_finished_attempt_is_done_again(archive: Archive, tmp_path: Path) -> None:
    first = FakeWorkers(lives=5 + 30 + 4)  # batches, probes, and four of the runs of iteration 1
    with pytest.raises(Killed):
        run(archive, tmp_path, workers=first)
    second, _ = run(archive, tmp_path)
    assert len(first.tried) == 4
    assert sorted(b for _, b, _ in first.tried + second.tried) == list(range(2, 12))
    assert len(first.probed) + len(second.probed) == 90


def test_a_run_killed_while_training_trains_again_from_the_same_start(
    archive: Archive, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        run(archive, tmp_path, train=FakeTrain(dies=True))
    pairs = archive.pairs(1)
    _, train = run(archive, tmp_path)
    assert [(start, out.name) for start, out, _, _ in train.calls] == [
        (SEED, "iteration_2"),
        (tmp_path / "iteration_2", "iteration_3"),
    ]
    assert archive.pairs(1) == pairs


def test_a_finished_loop_does_nothing_again(archive: Archive, tmp_path: Path) -> None:
    run(archive, tmp_path)
    before = everything(archive)
    workers, train = run(archive, tmp_path)
    assert (workers.written, workers.probed, workers.tried, train.calls) == ([], [], [], [])
    assert everything(archive) == before


def test_another_seed_number_writes_other_programs(archive: Archive, tmp_path: Path) -> None:
    run(archive, tmp_path)
    other = Archive(tmp_path / "other.sqlite", create=True)
    run(other, tmp_path, small_config(seed=1))
    assert not {a.text for a in archive.attempts()} & {a.text for a in other.attempts()}
    other.close()
