"""Tasks of lm-evaluation-harness on the living engine; skipped without the extra lm-eval."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import Family

from selfdev import api
from selfdev.engine.engine import Engine
from selfdev.engine.scorer import prepare, score
from selfdev.errors import SelfdevError
from selfdev.tasks.tasks import load_task

ROOT = Path(__file__).parents[1]


def test_without_the_extra_the_next_step_is_named(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "selfdev.tasks.harness", raising=False)
    with pytest.raises(SelfdevError, match=r"need the extra lm-eval; pip install"):
        api.score(family.seed, "lm-eval:x")


def test_replies_are_those_of_the_engine(family: Family) -> None:
    pytest.importorskip("lm_eval")
    from selfdev.tasks.harness import LivingModel

    engine = Engine(family.seed, dtype="float32")
    asked = [("1 plus 1 is", 3), ("2 plus", 5), ("3 times 3 is", 3)]
    requests = [SimpleNamespace(args=(p, {"until": ["\n"], "max_gen_toks": n})) for p, n in asked]
    alone = [engine.answer(engine.prepare([p], [None], 1), n, ("\n",))[0] for p, n in asked]
    assert LivingModel(engine, 2).generate_until(requests) == alone


def test_likelihoods_are_those_of_the_model(family: Family) -> None:
    pytest.importorskip("lm_eval")
    from selfdev.tasks.harness import LivingModel

    engine = Engine(family.seed, dtype="float32")
    ids = engine.tokenizer("1 plus 1 is 2").input_ids
    with torch.inference_mode():
        nats = torch.log_softmax(engine.model(torch.tensor([ids])).logits[0, -2], -1)
    best = engine.tokenizer.decode(int(nats.argmax()))
    requests = [SimpleNamespace(args=("1 plus 1 is", f" {word}")) for word in ("2", best)]
    (value, is_greedy), (_, best_is_greedy) = LivingModel(engine).loglikelihood(requests)
    assert value == pytest.approx(float(nats[ids[-1]]), abs=1e-5)
    assert (is_greedy, best_is_greedy) == (int(nats.argmax()) == ids[-1], True)


def local_task(folder: Path, **files: list[int]) -> Path:
    """A task with two choices in a folder of its own: by split, the label of each question."""
    named = {split: f"{folder}/{split}.jsonl" for split in files}
    for split, labels in files.items():
        rows = [{"text": f"{i} plus {split.count('t')} is", "label": one} for i, one in enumerate(labels)]
        Path(named[split]).write_text("\n".join(json.dumps(row) for row in rows))
    splits = {"train": "training_split", "validation": "validation_split", "test": "test_split"}
    (folder / "task.yaml").write_text(
        "task: tiny_choice\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {json.dumps(named)}}}\n"
        + "".join(f"{splits[split]}: {split}\n" for split in files)
        + "output_type: multiple_choice\ndoc_to_text: '{{text}}'\ndoc_to_target: label\n"
        "doc_to_choice: ['2', '7']\nmetric_list: [{metric: acc}]\n"
    )
    return folder


def more_likely(engine: Engine, prompt: str) -> int:
    """Which of the two choices the model finds more likely."""
    from selfdev.tasks.harness import LivingModel

    found = LivingModel(engine).loglikelihood([SimpleNamespace(args=(prompt, f" {c}")) for c in "27"])
    return max((0, 1), key=lambda i: found[i][0])


def test_multiple_choice_of_a_local_task(family: Family, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    from selfdev.tasks import harness

    engine = Engine(family.seed, dtype="float32")
    label = more_likely(engine, "0 plus 2 is")
    folder = local_task(tmp_path, test=[label])
    assert harness.score(engine, "tiny_choice", {}, folder=folder).strict == (True,)
    folder = local_task(tmp_path, test=[1 - label])
    assert harness.score(engine, "tiny_choice", {}, folder=folder).strict == (False,)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_questions_for_the_loop_are_asked_in_their_order(family: Family, tmp_path: Path, split: str) -> None:
    pytest.importorskip("lm_eval")
    engine = Engine(family.seed, dtype="float32")
    labels = [i % 3 % 2 for i in range(9)]
    folder = local_task(tmp_path, train=labels, test=labels[::-1])
    task = load_task("lm-eval:tiny_choice", 0, path=str(folder))
    asked = task.split(split)
    assert sorted(int(q.answer) for q in asked) == list(range(9))
    assert [q.prompt for q in asked] == [f"{q.answer} plus {1 if split == 'dev' else 2} is" for q in asked]
    gold = {"dev": labels, "test": labels[::-1]}[split]
    expected = tuple(more_likely(engine, q.prompt) == gold[int(q.answer)] for q in asked)
    assert len(set(expected)) == 2
    exam = prepare(engine, asked[2:8], 8, 4, source=task.source, split=split)
    assert score(engine, exam, {}).strict == expected[2:8]


def test_the_kind_of_a_question_is_what_its_data_say(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    folder = local_task(tmp_path, train=[0], test=[0, 1])
    rows = [{"text": "a", "label": 0, "category": "law"}, {"text": "b", "label": 1, "category": "art"}]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "train.jsonl").write_text(json.dumps({"text": "c", "label": 0, "category": "law"}))
    task = load_task("lm-eval:tiny_choice", 0, path=str(folder))
    assert {q.prompt: q.skill for q in task.test} == {"a": "law", "b": "art"}
    assert [q.skill for q in task.dev] == ["law"]


def test_dev_is_validation_where_the_harness_tests_on_test(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    folder = local_task(tmp_path, train=[0], validation=[0, 1], test=[0, 1, 0])
    task = load_task("lm-eval:tiny_choice", 0, path=str(folder))
    assert (len(task.dev), len(task.test)) == (2, 3)


def test_dev_is_taken_from_test_only_where_that_is_said(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    folder = local_task(tmp_path, test=[0, 1, 0, 1, 0])
    with pytest.raises(
        SelfdevError, match=r"task lm-eval:tiny_choice has no split apart .*i_know_dev_is_test"
    ):
        load_task("lm-eval:tiny_choice", 0, path=str(folder)).split("dev")
    task = load_task("lm-eval:tiny_choice", 0, path=str(folder), dev_from_test=2)
    places = [int(q.answer) for q in (*task.dev, *task.test)]
    assert (len(task.dev), sorted(places)) == (2, [0, 1, 2, 3, 4])


def test_a_dev_question_that_stands_in_test_too_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    folder = local_task(tmp_path, train=[0, 1], test=[0, 1])
    asked = (folder / "train.jsonl").read_text().splitlines()
    (folder / "train.jsonl").write_text("\n".join([asked[0], asked[1].replace("plus 1", "PLUS  2")]))
    with pytest.raises(SelfdevError, match=r"lm-eval:tiny_choice: 1 dev question.s. stand in test too"):
        load_task("lm-eval:tiny_choice", 0, path=str(folder))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nosuchtask", {}, "task lm-eval:nosuchtask is unknown to lm-evaluation-harness; `lm-eval ls tasks`"),
        ("tiny_choice", {"path": "nowhere"}, "path is nowhere and must be a folder with YAML tasks"),
        ("tiny_choice", {"split": "dev"}, "split is 'dev' and lm-eval:tiny_choice is asked and graded by"),
        ("tiny_choice", {"grader": "exact"}, "grader is 'exact' and lm-eval:tiny_choice is asked"),
    ],
)
def test_what_the_harness_cannot_do_is_refused(
    name: str, options: dict[str, str], words: str, family: Family, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval")
    given = {"path": str(local_task(tmp_path, test=[0]))} | options
    with pytest.raises(SelfdevError, match=words):
        api.score(family.seed, f"lm-eval:{name}", **given)  # type: ignore[arg-type]


def test_score_takes_a_folder_of_tasks_and_a_chat(family: Family, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    engine = Engine(family.seed, dtype="float32")
    label = more_likely(engine, "0 plus 2 is")
    folder = str(local_task(tmp_path, test=[label, 1 - label]))
    result = api.score(family.seed, "lm-eval:tiny_choice", path=folder, limit=1, shots=0)
    assert (result.n, result.correct, result.split) == (1, 1, "test")
    assert api.score(family.seed, "lm-eval:tiny_choice", path=folder, shots=0, chat=True).n == 2
    plain = shutil.copytree(family.seed, tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    with pytest.raises(SelfdevError, match="has no chat template"):
        api.score(plain, "lm-eval:tiny_choice", path=folder, shots=0, chat=True)


def test_the_harness_shows_its_own_prompts(family: Family, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    folder = str(local_task(tmp_path, test=[0]))
    with pytest.raises(SelfdevError, match="see them with its own --write_out"):
        api.show_prompt(family.seed, "lm-eval:tiny_choice", path=folder)


def test_the_same_count_as_the_harness_on_500_questions_of_the_lab() -> None:
    pytest.importorskip("lm_eval")
    words = [sys.executable, str(ROOT / "scripts" / "harness_agreement.py"), "--count", "500"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=1800)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["n"] == 500
    assert found["harness"] == found["harness_on_engine"] == found["selfdev"]
    assert found["different"] == []
