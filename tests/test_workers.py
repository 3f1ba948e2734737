"""Worker processes on the real tiny family: writing, probing, trying, examining, and dying."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from writing_family import ARITHMETIC, HEAD, PROGRAMS, build

from selfdev.checkpoints import Checkpoint, open_checkpoint, views
from selfdev.config.task import TaskBesides
from selfdev.engine.engine import Engine
from selfdev.errors import SelfdevError
from selfdev.factory import factory
from selfdev.fingerprint import make_probes
from selfdev.library import load_program
from selfdev.lineage import Parents
from selfdev.records import Outcome, State
from selfdev.tasks.questions import ExamName, exam_questions
from selfdev.tasks.tasks import Question, Task, load_task
from selfdev.workers.workers import Setup, Workers

SIZES = {"dev": 10, "finalist_dev": 20, "test": 30}
GOOD, COPY, CRASH, INVALID = PROGRAMS[0], PROGRAMS[-4], PROGRAMS[-2], PROGRAMS[-1]
TASK_ARITHMETIC = HEAD + ARITHMETIC % [0.5, 0.5]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("writing"))


@pytest.fixture(scope="module")
def setup(root: Path) -> Setup:
    seed, *experts = (open_checkpoint(root / name, name) for name in ("seed", "good", "bad"))
    shown = views(seed, experts)
    return Setup(
        seed=seed, experts=tuple(experts), scope="mlp", dtype=None, seconds=20.0, memory_gb=2.0,
        accept_weaker=False, task=str(root / "questions.jsonl"), shots=0, sizes=SIZES, first_block=0, limit=2,
        batch=30, threads=1, known={"linear": load_program("linear").code}, probes=make_probes(shown, root),
    )  # fmt: skip


@pytest.fixture(scope="module")
def workers(setup: Setup) -> Iterator[Workers]:
    with Workers(setup, 1) as started:
        yield started


def test_batches_are_written_as_by_one_engine(workers: Workers, root: Path) -> None:
    numbers = factory.uniforms(0, 1, 0, 6, 1)
    written = dict(workers.write(root / "seed", "plus", 2.0, [numbers[:4], numbers[4:]]))
    assert written[0].texts + written[1].texts == Engine(root / "seed").sample(
        "plus", 2.0, torch.from_numpy(numbers)
    )


def test_another_factory_writes_with_its_own_weights(workers: Workers, root: Path) -> None:
    numbers = factory.uniforms(0, 1, 0, 40, 1)
    written = dict(workers.write(root / "good", "plus", 2.0, [numbers]))[0].texts
    assert written == Engine(root / "good").sample("plus", 2.0, torch.from_numpy(numbers))
    assert written != Engine(root / "seed").sample("plus", 2.0, torch.from_numpy(numbers))


def test_probes_tell_behaviours_apart(workers: Workers) -> None:
    texts = [GOOD, "```python\n" + GOOD + "```", PROGRAMS[1], CRASH, INVALID, "no code"]
    probed = dict(workers.probe([(text, 0) for text in texts]))
    assert [probed[i].outcome.state for i in range(6)] == [
        State.MERGED, State.MERGED, State.MERGED, State.CRASHED, State.INVALID, State.INVALID,
    ]  # fmt: skip
    assert probed[0].fingerprint == probed[1].fingerprint != probed[2].fingerprint
    assert probed[1].code.strip() == GOOD.strip()
    assert (probed[3].fingerprint, probed[4].code) == (None, "")
    assert "open" in probed[4].outcome.reason


def test_the_nearest_known_method_is_found(workers: Workers) -> None:
    # The mean of seed and two experts moves by a third of both task vectors: the same direction as a half.
    (_, probed), *_ = workers.probe([(TASK_ARITHMETIC, 0)])
    assert probed.nearest == "linear"
    assert probed.distance == pytest.approx(0, abs=1e-3)


def test_a_copy_of_the_good_expert_has_every_answer(workers: Workers) -> None:
    (_, tried), *_ = workers.try_programs([(COPY, 0, "dev")])
    assert tried.outcome.copy_of == "good"
    assert tried.score is not None
    assert (tried.score.correct, tried.score.n) == (10, 10)


def test_programs_have_the_threads_of_their_worker(setup: Setup) -> None:
    code = HEAD + "    assert torch.get_num_threads() == 2\n    return dict(seed)\n"
    with Workers(replace(setup, threads=2), 1) as pair:
        (_, tried), *_ = pair.try_programs([(code, 0, "dev")])
    assert tried.outcome.copy_of == "seed"


@pytest.mark.parametrize("exam", ["dev", "finalist_dev", "test"])
def test_checkpoints_are_scored_as_they_are(workers: Workers, setup: Setup, exam: ExamName) -> None:
    seed, good = setup.seed, setup.experts[0]
    tried = dict(workers.examine([(good, exam), (seed, exam), ((COPY, 0, None), exam)]))
    scores = [tried[place].score for place in range(3)]
    assert scores[0] is not None
    assert scores[1] is not None
    assert scores[0].accuracy == 1.0
    assert scores[1].accuracy < 0.5
    assert scores[0].n == SIZES[exam]
    assert scores[2] == scores[0]


def test_a_task_besides_is_asked_with_its_own_keys(workers: Workers, setup: Setup, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in Path(setup.task).read_text().splitlines()]
    path = tmp_path / "besides.jsonl"
    path.write_text("\n".join(json.dumps({**row, "subject": row["question"][0]}) for row in rows[:9]))
    task = TaskBesides(name=str(path), shots=0, test=7, max_new_tokens=2)
    tried = dict(workers.examine([(setup.experts[0], task), ((COPY, 0, None), task)]))
    assert tried[0].score == tried[1].score
    assert tried[0].score is not None
    assert (tried[0].score.n, tried[0].score.accuracy) == (7, 1.0)
    assert tried[0].replies is not None
    assert len(tried[0].replies.lengths) == 7
    assert set(tried[0].replies.kinds) <= set("0123456789")


def test_programs_of_another_iteration_merge_its_parents(
    workers: Workers, setup: Setup, tmp_path: Path
) -> None:
    seed, (good, bad) = setup.seed, setup.experts
    experts = (replace(bad, name="bad"), replace(seed, name="seed_1"))
    shown = views(replace(good, name="seed"), experts)
    parents = Parents(2, replace(good, name="seed"), experts, make_probes(shown, tmp_path))
    keep, back = HEAD + "    return dict(seed)\n", HEAD + "    return dict(experts[1])\n"
    jobs = [((keep, 0, parents), "test"), ((keep, 0, None), "test"), ((back, 0, parents), "test")]
    tried = dict(workers.examine(jobs))  # type: ignore[arg-type]
    scores = [tried[place].score for place in range(3)]
    assert scores[0] is not None
    assert scores[0].accuracy == 1.0
    assert scores[1] == scores[2] != scores[0]
    assert tried[2].outcome.copy_of == "seed_1"
    ours, theirs = (dict(workers.probe([(GOOD, 0)], on))[0].fingerprint for on in (None, parents))
    assert ours is not None
    assert theirs is not None
    assert theirs.startswith("2:")
    assert dict(workers.probe([(GOOD, 0)]))[0].fingerprint == ours


def test_a_score_does_not_depend_on_what_was_tried_before(workers: Workers) -> None:
    alone = [dict(workers.try_programs([(code, 0, "dev")]))[0].score for code in (GOOD, PROGRAMS[6])]
    together = dict(workers.try_programs([(c, 0, "dev") for c in (PROGRAMS[6], COPY, GOOD, CRASH)]))
    assert [together[2].score, together[0].score] == alone
    assert together[3].score is None
    assert together[3].outcome.state is State.CRASHED


def test_a_worker_that_dies_is_replaced_and_changes_no_result(setup: Setup) -> None:
    jobs = [(text, 0) for text in (GOOD, PROGRAMS[1], CRASH, INVALID)]
    with Workers(setup, 1) as started:
        whole = dict(started.probe(jobs))
        again: dict[int, Any] = {}
        for place, probed in started.probe(jobs):
            again[place] = probed
            if len(again) in (1, 2):
                os.kill(started._crew.pids[0], signal.SIGKILL)
    assert {place: (p.fingerprint, p.outcome.state) for place, p in again.items()} == {
        place: (p.fingerprint, p.outcome.state) for place, p in whole.items()
    }


def test_what_always_kills_its_worker_is_unscored(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def dying(*_: object, **how: Any) -> Iterator[tuple[int, Any]]:
        yield 0, how["lost"]("its worker process died")

    with Workers(setup, 1) as started:
        monkeypatch.setattr(started._crew, "stream", lambda work, jobs, lost: dying(work, jobs, lost=lost))
        (_, probed), *_ = started.probe([(GOOD, 0)])
        (_, tried), *_ = started.try_programs([(GOOD, 0, "dev")])
    assert probed.outcome == tried.outcome == Outcome(State.UNSCORED, "its worker process died")
    assert tried.score is None


def test_a_checkpoint_that_changes_meanwhile_stops_the_work(setup: Setup, root: Path, tmp_path: Path) -> None:
    expert = open_checkpoint(shutil.copytree(root / "good", tmp_path / "good"), "good")
    changed = replace(setup, experts=(expert, setup.experts[1]))
    words = r"good: .*model\.safetensors was deleted while programs were tried on it; put back what it was"
    with Workers(changed, 1) as started:
        results = started.probe([(INVALID, 0)] * 2)
        next(results)
        (tmp_path / "good" / "model.safetensors").unlink()
        with pytest.raises(SelfdevError, match=words):
            next(results)


@pytest.mark.parametrize(
    ("broken", "kind", "words"),
    [
        ({"task": "nowhere.jsonl"}, SelfdevError, r"^questions nowhere\.jsonl cannot be read"),
        ({"known": {"odd": 5}}, RuntimeError, r"^a worker process could not start: AttributeError: "),
    ],
)
def test_what_stops_a_worker_at_its_start_is_told(
    setup: Setup, broken: dict[str, Any], kind: type[Exception], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with Workers(replace(setup, **broken), 1) as started, pytest.raises(kind, match=words):
        dict(started.probe([(GOOD, 0)] * 3))
    assert capfd.readouterr().err == ""


def test_hopeless_programs_are_stopped_after_their_first_block(setup: Setup, root: Path) -> None:
    # The good expert as seed answers everything; a program that ruins it gets only its first questions.
    swapped = replace(setup, sizes={"dev": 30, "finalist_dev": 30, "test": 30}, first_block=10)
    good: Checkpoint = open_checkpoint(root / "good", "seed")
    away = open_checkpoint(root / "seed", "away")
    shown = views(good, [away])
    swapped = replace(swapped, seed=good, experts=(away,), probes=make_probes(shown, root / "seed"))
    ruin, keep = (HEAD + ARITHMETIC % [weight] for weight in (-3.0, 0.0))
    with Workers(swapped, 1) as started:
        tried = dict(started.try_programs([(ruin, 0, "dev"), (keep, 0, "dev"), (ruin, 0, "test")]))
    counts = [score.n for t in (tried[0], tried[1], tried[2]) if (score := t.score)]
    assert counts == [10, 30, 30]


def test_programs_below_the_bar_are_stopped_though_the_seed_is_no_better(setup: Setup) -> None:
    swapped = replace(setup, sizes={"dev": 30, "finalist_dev": 30, "test": 30}, first_block=10)
    seed = HEAD + ARITHMETIC % [0.0]
    with Workers(swapped, 1) as started:
        free = dict(started.try_programs([(seed, 0, "dev")]))
        barred = dict(started.try_programs([(seed, 0, "dev"), (seed, 0, "test")], bar=0.9))
    assert [score.n for t in (free[0], barred[0], barred[1]) if (score := t.score)] == [30, 10, 30]


def task(dev: int, test: int) -> Task:
    asked = {s: tuple(Question(f"{s} {i}", "1") for i in range(n)) for s, n in (("dev", dev), ("test", test))}
    return Task("t", asked["dev"], asked["test"])


def test_finalists_get_other_dev_questions() -> None:
    sizes = {"dev": 3, "finalist_dev": 4, "test": 2}
    prompts = {name: [q.prompt for q in exam_questions(task(9, 9), name, sizes)] for name in names()}
    assert prompts == {
        "dev": ["dev 0", "dev 1", "dev 2"],
        "finalist_dev": ["dev 3", "dev 4", "dev 5", "dev 6"],
        "test": ["test 0", "test 1"],
    }


def names() -> tuple[ExamName, ...]:
    return ("dev", "finalist_dev", "test")


def test_zero_means_every_test_question() -> None:
    assert len(exam_questions(task(2, 9), "test", {"dev": 1, "finalist_dev": 1, "test": 0})) == 9


def test_the_familys_questions_have_several_answers(root: Path) -> None:
    # Otherwise a model that always says the same would score everything in the tests above.
    asked = load_task(str(root / "questions.jsonl"))
    assert len({q.answer for q in (*asked.dev, *asked.test)}) > 1


def test_gibberish_gets_its_state_and_reason_and_no_score(setup: Setup, root: Path, tmp_path: Path) -> None:
    rows = [{"question": f"{i} plus", "answer": i, "solution": f"#### {i}"} for i in range(10)]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(json.dumps(row) for row in rows))
    shown = views(setup.seed, setup.experts, "all")
    looking = replace(
        setup, scope="all", probes=make_probes(shown, root / "seed"), task=str(questions), sanity=4,
        sizes={"dev": 5, "finalist_dev": 0, "test": 0},
    )  # fmt: skip
    # Turned around and made sure of itself, the model gives the right answer no chance at all.
    ruin, keep = (
        HEAD + f"    return {{n: seed[n] * ({by} if n == 'model.norm.weight' else 1.0) for n in seed}}\n"
        for by in (-1000.0, 1.0)
    )
    with Workers(looking, 1) as started:
        tried = dict(started.try_programs([(ruin, 0, "dev"), (keep, 0, "dev")]))
    assert tried[0].outcome.state is State.BAD_WEIGHTS
    assert "gibberish: perplexity" in tried[0].outcome.reason
    assert tried[0].score is None
    assert tried[1].score is not None
    assert tried[1].score.n == 5
