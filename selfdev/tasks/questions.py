"""What a task is made of: questions with their prompts, dev and test apart, and how answers are graded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from selfdev.errors import SelfdevError
from selfdev.tasks.grading import Grader

if TYPE_CHECKING:
    from selfdev.engine.engine import Engine

SPLITS = ("dev", "test")
ExamName = Literal["dev", "finalist_dev", "test"]
STOPS = ("\nQuestion:", "\n\n")
Shot = tuple[str, str]  # what is asked in an example, and the answer shown


@dataclass(frozen=True, slots=True)
class Question:
    """One question: `prompt` is what the model continues; `solution` a worked answer where there is one,
    `skill` the kind of question it is, such as the subject.

    `messages` are the same as turns of a conversation (user, assistant, ..., user), for chat templates.
    """

    prompt: str
    answer: str
    solution: str | None = None
    skill: str = ""
    choices: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()


class Source(Protocol):
    """Poses and grades questions in its own way, with an engine that holds the model."""

    def ask(
        self, engine: Engine, split: str, places: Sequence[int], *, batch: int, limit: int, chat: bool
    ) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
        """Strict and flexible results of the questions at these places of a split, in this order."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """A named set of dev and test questions, each in one fixed order; `no_dev` says why there are none.

    A task with a `source` is posed and graded by it: there a question's answer is its place in the split.
    """

    name: str
    dev: tuple[Question, ...]
    test: tuple[Question, ...]
    grader: Grader = "number"
    stops: tuple[str, ...] = STOPS
    no_dev: str = ""
    source: Source | None = None

    def split(self, name: str) -> tuple[Question, ...]:
        """The questions of a split; SelfdevError for a name that is not one, and where there is no dev."""
        if name not in SPLITS:
            raise SelfdevError(f"split {name!r} does not exist; choose dev or test.")
        if name == "dev" and self.no_dev:
            raise SelfdevError(self.no_dev)
        return self.dev if name == "dev" else self.test


def exam_questions(task: Task, name: ExamName, sizes: Mapping[str, int]) -> tuple[Question, ...]:
    """The questions of a stage: dev and finalist_dev are different parts of the dev split."""
    if name == "test":
        return task.test[: sizes["test"] or None]
    start = sizes["dev"]
    dev = task.split("dev")
    return dev[:start] if name == "dev" else dev[start : start + sizes["finalist_dev"]]


def held_out(task: Task, limit: int) -> tuple[Question, ...]:
    """The first `limit` (0: all) questions of a task that the search never sees: a file is asked whole."""
    asked = task.dev + task.test if task.name.endswith(".jsonl") else task.test
    return asked[: limit or None]


def pose(
    shots: Sequence[Shot],
    asked: str,
    answer: str,
    solution: str | None = None,
    skill: str = "",
    choices: Sequence[str] = (),
) -> Question:
    """A question behind its solved examples, put together as lm-evaluation-harness does."""
    prompt = "".join(f"{question} {reply}\n\n" for question, reply in shots) + asked
    messages = (*(text for shot in shots for text in shot), asked)
    return Question(prompt, answer, solution, skill, tuple(choices), messages)


def asked(question: str) -> str:
    """A question in the form of GSM8K in lm-evaluation-harness."""
    return f"Question: {question}\nAnswer:"


def last_turn(question: Question) -> str:
    """A question without its examples, so that copies are alike."""
    return normalised(question.messages[-1] if question.messages else question.prompt)


def normalised(text: str) -> str:
    """A question's text, so that copies which differ in case or spaces are alike."""
    return " ".join(text.lower().split())


def check_apart(source: str, dev: Iterable[str], test: Iterable[str]) -> None:
    """SelfdevError when a dev question is a test question too."""
    tested = {normalised(text) for text in test}
    shared = [text for text in dev if normalised(text) in tested]
    if shared:
        raise SelfdevError(
            f"{source}: {len(shared)} dev question(s) stand in test too, the first is {shared[0][:60]!r};"
            " remove them from one of the two."
        )
