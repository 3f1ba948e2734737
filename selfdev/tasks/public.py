"""GSM8K and MATH, asked as lm-evaluation-harness 0.4 asks them in its tasks gsm8k and minerva_math.

Questions come from the hub or from a folder with train.jsonl and test.jsonl. Dev questions are drawn from the
train split in one fixed random order. GSM8K's test questions keep theirs, on which their examples depend;
MATH's are mixed, as the dataset is sorted by subject.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from selfdev.errors import SelfdevError
from selfdev.tasks import maths
from selfdev.tasks.grading import Grader
from selfdev.tasks.questions import Question, Shot, Task, asked, check_apart, normalised, pose
from selfdev.tasks.rows import Row, read_rows

GSM8K_ID = "openai/gsm8k"  # Cobbe et al. 2021, arXiv 2110.14168
MATH_ID = "EleutherAI/hendrycks_math"  # Hendrycks et al. 2021, arXiv 2103.03874
GSM8K_STOPS = ("Question:", "</s>", "<|im_end|>")
MATH_STOPS = ("Problem:",)
MATH_SHOTS = 4
MATH_SUBJECTS = (
    "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
    "precalculus",
)  # fmt: skip
HARNESS_SEED = 1234  # of lm-evaluation-harness's draw of examples

_NO_DEV = (
    "task {name} has no dev questions, as {source} has no train.jsonl; add one, or take dev from test with"
    " task.i_know_dev_is_test: true."
)


@dataclass(frozen=True, slots=True)
class _Splits:
    """Rows of train (empty: there is none) and test, and where they came from."""

    source: str
    train: list[Row]
    test: list[Row]


def load_gsm8k(shots: int = 5, path: str | None = None, dev_from_test: int = 0) -> Task:
    """GSM8K; each question has `shots` train questions in front, drawn as the harness draws them."""
    rows = _splits("gsm8k", path, ("question", "answer"), GSM8K_ID, ("main",))
    pool = rows.train or rows.test
    if shots >= len(pool):
        raise SelfdevError(
            f"task gsm8k has {len(pool)} questions in {rows.source} to take examples from and shots is"
            f" {shots}; lower it."
        )

    def posed(row: Row, rng: random.Random, is_in_pool: bool) -> Question:
        drawn = _examples(row, pool, shots, rng) if is_in_pool else rng.sample(pool, shots)
        examples = [(asked(r["question"]), r["answer"]) for r in drawn]
        return pose(examples, asked(row["question"]), row["answer"].split("#### ")[-1], row["answer"])

    return _task("gsm8k", rows, "question", dev_from_test, posed, GSM8K_STOPS)


def load_math(shots: int = MATH_SHOTS, path: str | None = None, dev_from_test: int = 0) -> Task:
    """MATH; each question has the first `shots` of Minerva's four examples in front."""
    if shots > MATH_SHOTS:
        raise SelfdevError(f"task math has {MATH_SHOTS} examples and shots is {shots}; lower it.")
    rows = _splits("math", path, ("problem", "solution"), MATH_ID, MATH_SUBJECTS)
    examples = [(_problem(problem), solution) for problem, solution in minerva()[:shots]]
    shown = {normalised(problem) for problem, _ in minerva()}
    train = [row for row in rows.train if normalised(row["problem"]) not in shown]

    def posed(row: Row, *_: object) -> Question:
        answer = maths.gold(row["solution"])
        return pose(examples, _problem(row["problem"]), answer, row["solution"], row.get("type") or "")

    apart = _Splits(rows.source, train, rows.test)
    return _task("math", apart, "problem", dev_from_test, posed, MATH_STOPS)


def minerva() -> list[Shot]:
    """Problems and solutions of Minerva's prompt (Lewkowycz et al. 2022, arXiv 2206.14858, appendix D)."""
    text = (Path(__file__).parent / "minerva.txt").read_text(encoding="utf-8").rstrip("\n")
    blocks = text.removeprefix("Problem:\n").split("\n\nProblem:\n")
    return [(problem, solution) for problem, _, solution in (b.partition("\n\nSolution: ") for b in blocks)]


def _problem(problem: str) -> str:
    return f"Problem:\n{problem}\n\nSolution:"


def _examples(row: Row, pool: Sequence[Row], count: int, rng: random.Random) -> list[Row]:
    """`count` rows of the pool other than this one, by the harness's own draw."""
    return [drawn for drawn in rng.sample(pool, count + 1) if drawn != row][:count]


def _task(
    name: str,
    rows: _Splits,
    key: str,
    dev_from_test: int,
    posed: Callable[[Row, random.Random, bool], Question],
    stops: tuple[str, ...],
) -> Task:
    """Pose test in its order, then dev in a random one; examples are drawn anew for each of the two."""
    rng = random.Random(HARNESS_SEED)
    test = [(row[key], posed(row, rng, not rows.train)) for row in rows.test]
    if name == "math" or dev_from_test:  # MATH is sorted by subject
        random.Random(0).shuffle(test)
    pool = list(rows.train)
    random.Random(0).shuffle(pool)
    rng = random.Random(HARNESS_SEED)
    taken = min(dev_from_test, len(test))
    dev = test[:taken] if taken else [(row[key], posed(row, rng, True)) for row in pool]
    check_apart(rows.source, (text for text, _ in dev), (text for text, _ in test[taken:]))
    no_dev = "" if dev else _NO_DEV.format(name=name, source=rows.source)
    dev_questions, test_questions = (tuple(q for _, q in part) for part in (dev, test[taken:]))
    grader: Grader = "math" if name == "math" else "number"
    return Task(name, dev_questions, test_questions, grader, stops, no_dev)


def _splits(name: str, path: str | None, keys: Sequence[str], hub: str, parts: Sequence[str]) -> _Splits:
    """Rows from a file (test alone) or a folder, or without `path` from the hub."""
    if path is None:
        return _from_hub(name, hub, parts)
    place = Path(path)
    if place.is_dir():
        train = read_rows(place / "train.jsonl", keys, keys) if (place / "train.jsonl").exists() else []
        return _Splits(path, train, read_rows(place / "test.jsonl", keys, keys))
    return _Splits(path, [], read_rows(place, keys, keys))


def _from_hub(name: str, hub: str, parts: Sequence[str]) -> _Splits:
    """Rows of a dataset's parquet files, fetched once and then read from the hub's cache."""
    from huggingface_hub import snapshot_download

    wanted = {split: [f"{part}/{split}-*.parquet" for part in parts] for split in ("train", "test")}
    try:
        folder = Path(
            snapshot_download(
                hub, repo_type="dataset", allow_patterns=[p for w in wanted.values() for p in w]
            )
        )
        files = {
            split: sorted(f for p in patterns for f in folder.glob(p)) for split, patterns in wanted.items()
        }
        from datasets import Dataset  # slow to import, and of no use where nothing was fetched

        rows = {
            split: [r for f in found for r in Dataset.from_parquet(str(f), keep_in_memory=True).to_list()]
            for split, found in files.items()
        }
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0].rstrip(".")
        raise SelfdevError(
            f"task {name} needs the dataset {hub}, which is not in the hub's cache and cannot be fetched"
            f" ({first}); go online once, or give a folder with train.jsonl and test.jsonl (task.path)."
        ) from None
    if not rows["train"] or not rows["test"]:
        raise SelfdevError(
            f"the dataset {hub} has no questions in {wanted['test'][0]}; give a folder instead."
        )
    return _Splits(hub, rows["train"], rows["test"])
