"""The settings of the questions; the other sections are in `selfdev.config.settings`."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from selfdev.lab.questions import SKILLS
from selfdev.tasks.grading import Grader, Lead

TASKS = ("lab", "gsm8k", "math")
PUBLIC = ("gsm8k", "math", "lm-eval")  # before a colon
MATH_SHOTS = 4  # Minerva's prompt has no more


class Section(BaseModel):
    """A part of the config: nothing in it can be changed and no unknown key gets in."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Questions(Section):
    """Questions and how they are asked."""

    name: str = Field(
        description="lab, gsm8k, math, lm-eval: and the name of a task of lm-evaluation-harness, or the path"
        " of a .jsonl file with question and answer."
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description="Folder with train.jsonl and test.jsonl, or a file of test questions, for gsm8k and math,"
        " or with YAML tasks of your own, for lm-eval; none: from the hub, or the harness's own.",
    )
    grader: Grader = Field(
        default="number",
        description="How answers of a .jsonl file are compared: number, math (LaTeX), exact, or choice; lab"
        " and gsm8k have number, math has math.",
    )
    shots: int = Field(
        default=5,
        ge=0,
        description="Solved examples before each question; math has 4 unless told otherwise, and no more."
        " PAPER.md: scoring, 5 (B1).",
    )
    skills: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(),
        description="Skills of the lab that are asked, all of them where none is named; so a search can"
        " leave skills to `besides` or to another config. Ours.",
    )
    test: int = Field(
        default=0, ge=0, description="Test questions, 0 for all. PAPER.md: test set, 1,220 (B1)."
    )
    max_new_tokens: int = Field(default=256, ge=1, description="Longest answer, tokens. PAPER.md: not known.")

    @field_validator("name")
    @classmethod
    def _is_a_task(cls, value: str) -> str:
        if value not in TASKS and not value.endswith(".jsonl") and not value.startswith("lm-eval:"):
            near = difflib.get_close_matches(value, TASKS, 1, 0.0)[0]
            raise ValueError(
                "must be lab, gsm8k, math, lm-eval: and the name of a task, or a path that ends in .jsonl;"
                f" the nearest is {near}"
            )
        return value

    @field_validator("skills")
    @classmethod
    def _are_skills_of_the_lab(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in SKILLS:
                near = difflib.get_close_matches(name, SKILLS, 1, 0.0)[0]
                raise ValueError(f"skills has {name!r}, which is no skill of the lab; the nearest is {near}")
        return tuple(name for name in SKILLS if name in value)

    @model_validator(mode="before")
    @classmethod
    def _math_has_its_own(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("name") == "math":
            return {"shots": MATH_SHOTS, "grader": "math", **values}
        return values

    @model_validator(mode="after")
    def _keys_fit_the_task(self) -> Self:
        kind = self.name.split(":")[0]
        fixed = {"lab": "number", "gsm8k": "number", "math": "math", "lm-eval": "number"}.get(
            kind, self.grader
        )
        if self.grader != fixed:
            raise ValueError(
                f"grader is {self.grader} and {self.name} is graded by {fixed}; leave the key out"
            )
        if self.name == "math" and self.shots > MATH_SHOTS:
            raise ValueError(f"shots is {self.shots} and math has {MATH_SHOTS} examples; lower it")
        if self.skills and self.name != "lab":
            raise ValueError(f"skills is for lab and the task is {self.name}; leave it out")
        if self.path:
            self._only_public("path")
        return self

    def _only_public(self, key: str) -> None:
        if self.name.split(":")[0] not in PUBLIC:
            raise ValueError(
                f"{key} is for gsm8k, math and lm-eval and the task is {self.name}; leave it out"
            )

    @property
    def title(self) -> str:
        """What these questions are called in results."""
        skills = f" ({', '.join(self.skills)})" if len(self.skills) not in (0, len(SKILLS)) else ""
        return self.name + skills + (f" in {self.path}" if self.path else "")


class TaskBesides(Questions):
    """A task that the search never sees; its name alone will do. A file is asked whole, any other task its
    test questions."""

    @model_validator(mode="before")
    @classmethod
    def _a_name_will_do(cls, values: Any) -> Any:
        return {"name": values} if isinstance(values, str) else values


class Task(Questions):
    """The questions. Dev questions come from a train split; test is opened once, at the end."""

    grading: Lead = Field(
        default="strict",
        description="Reading of answers that ranks models: strict (the task's own form) or flexible (any last"
        " answer). Both are stored. Ours.",
    )
    chat: bool = Field(
        default=False,
        description="Ask through the tokenizer's chat template, examples as turns. PAPER.md: chat template in"
        " scoring, not known.",
    )
    i_know_dev_is_test: bool = Field(
        default=False,
        description="Take dev and finalist_dev out of a public task's test split, as the paper does (D); the"
        " report says it.",
    )
    dev: int = Field(
        default=100,
        ge=1,
        description="Questions every program is scored on. PAPER.md: dev set, 100 of GSM8K (B1).",
    )
    sanity: int = Field(
        default=0,
        ge=0,
        description="Dev questions on which a merged model must speak before it is scored, 0: no such look."
        " Ours.",
    )
    first_block: int = Field(
        default=0,
        ge=0,
        description="Dev questions after which hopeless programs are stopped first, then whenever as many"
        " again were asked and at least as many are left; 0: none is. Ours (group-sequential test).",
    )
    finalist_dev: int = Field(
        default=2000,
        ge=1,
        description="Other dev questions for finalists, seed and baselines only; at least `dev`. Ours: it"
        " corrects the winner's dev score.",
    )
    batch: int = Field(
        default=64,
        ge=1,
        description="Questions answered at once; changes speed, memory and, on a GPU, rare ties.",
    )

    @model_validator(mode="after")
    def _dev_is_taken_from_public_tests_only(self) -> Task:
        if self.i_know_dev_is_test:
            self._only_public("i_know_dev_is_test")
        return self

    @model_validator(mode="after")
    def _finalists_get_more(self) -> Task:
        if self.finalist_dev < self.dev:
            raise ValueError(
                f"finalist_dev is {self.finalist_dev} and must be at least dev, {self.dev}; raise it"
            )
        if self.first_block > self.dev:
            raise ValueError(
                f"first_block is {self.first_block} and must be at most dev, {self.dev}; lower it"
            )
        return self
