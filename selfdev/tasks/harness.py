"""Tasks of lm-evaluation-harness on the living model, in this process; needs the extra `lm-eval`.

The harness poses and grades; the engine answers (generate-until tasks) or says how likely each choice is
(multiple-choice tasks). Nothing is saved: the same engine goes on with the next weights.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lm_eval import evaluate, simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from selfdev.engine.scorer import no_template
from selfdev.errors import SelfdevError
from selfdev.records import Score
from selfdev.tasks.questions import Question, Task, check_apart

if TYPE_CHECKING:
    from torch import Tensor

    from selfdev.engine.engine import Engine

EXAMPLES_SEED = 1234  # of the harness's own command line
NO_DEV = (
    "task lm-eval:{} has no split apart from the one it is tested on; set task.i_know_dev_is_test to true to"
    " take dev questions from that, which are then no test questions."
)
STRICT = ("exact_match,strict-match", "exact_match,get-answer", "exact_match,none", "acc,none")
KINDS = ("subject", "category", "type")  # names of the field that says it
FLEXIBLE = ("exact_match,flexible-extract", "math_verify,none", "acc_norm,none")


class LivingModel(LM):  # type: ignore[misc]
    """An engine as a model of the harness; `limit` is the longest reply where a task names none, tokens."""

    def __init__(self, engine: Engine, batch: int = 64, limit: int = 256) -> None:
        super().__init__()
        self._engine, self._batch, self._limit = engine, batch, limit

    @property
    def tokenizer_name(self) -> str:
        return str(self._engine.tokenizer.name_or_path)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self._engine.tokenizer.chat_template if chat_template else ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        if not self._engine.tokenizer.chat_template:
            raise no_template(self._engine.tokenizer)
        text: str = self._engine.tokenizer.apply_chat_template(
            chat_history, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return text

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Greedy replies; requests that share their stop strings and length are answered together."""
        replies = [""] * len(requests)
        groups: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(_manner(request.args[1], self._limit), []).append(place)
        for (stops, limit), places in groups.items():
            prompts = [requests[place].args[0] for place in places]
            batches = self._engine.prepare(prompts, [None] * len(prompts), -(-self._batch // 4))
            for place, reply in zip(
                places, self._engine.answer(batches, limit, stops, rows=self._batch), strict=True
            ):
                replies[place] = reply
        return replies

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Log-probability (nats) of each continuation, and whether it is the greedy one."""
        return [self._likelihood(*request.args) for request in requests]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:  # noqa: ARG002
        raise SelfdevError(
            "perplexity tasks of lm-evaluation-harness give no right and wrong answers; choose another task."
        )

    @torch.inference_mode()
    def _likelihood(self, context: str, continuation: str) -> tuple[float, bool]:
        tokenizer = self._engine.tokenizer
        head = tokenizer(context).input_ids or [min(self._engine.ends)]
        # Tokenised together, as tokens may reach over the seam, unless that changes the context itself.
        whole = tokenizer(context + continuation).input_ids
        tail = whole[len(head) :] if whole[: len(head)] == head else []
        tail = tail or tokenizer(continuation, add_special_tokens=False).input_ids
        ids = torch.tensor([head + tail], device=self._engine.device)
        logits = self._engine.model(ids, logits_to_keep=len(tail) + 1).logits[0, :-1].float()
        wanted = ids[0, -len(tail) :]
        chosen = torch.log_softmax(logits, -1).gather(1, wanted[:, None])
        return float(chosen.sum()), bool((logits.argmax(-1) == wanted).all())


@dataclass(frozen=True, slots=True)
class Harness:
    """A task of the harness, loaded once: by split, the object that poses and grades its questions."""

    name: str
    splits: Mapping[str, Any]

    def ask(
        self, engine: Engine, split: str, places: Sequence[int], *, batch: int, limit: int, chat: bool
    ) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
        """Strict and flexible results of the questions at these places of a split, in this order."""
        ordered = sorted(places)  # the harness asks in its own order
        found = evaluate(
            LivingModel(engine, batch, limit),
            {"tasks": {self.name: self.splits[split]}, "groups": {}, "group_map": {}},
            samples={self.name: ordered},
            bootstrap_iters=0,
            apply_chat_template=chat,
        )
        read = read_score(found or {}, self.name)
        at = {place: i for i, place in enumerate(ordered)}
        strict, flexible = (tuple(bits[at[p]] for p in places) for bits in (read.strict, read.flexible))
        return strict, flexible


def load(name: str, shots: int, path: str | None = None, dev_from_test: int = 0) -> Task:
    """A task for the loop: dev questions from the split that the harness does not test on, in random order.

    `path` is a folder with YAML tasks of your own. The harness's own number of examples stays where it is 0.
    """
    test = _task(name, path, shots)
    dev_split = _dev_split(test)
    dev = test if dev_from_test or dev_split is None else _task(name, path, shots, dev_split)
    order = {split: _questions(task) for split, task in (("dev", dev), ("test", test))}
    if dev_from_test:
        order = {"dev": order["test"][:dev_from_test], "test": order["test"][dev_from_test:]}
    no_dev = "" if dev_split or dev_from_test else NO_DEV.format(name)
    asked = () if no_dev else order["dev"]
    check_apart(f"lm-eval:{name}", *(map(_whole, part) for part in (asked, order["test"])))
    source = Harness(name, {"dev": dev, "test": test})
    return Task(f"lm-eval:{name}", asked, order["test"], no_dev=no_dev, source=source)


def _task(name: str, path: str | None, shots: int, split: str | None = None) -> Any:
    """One task of the harness, with `shots` examples unless it fixes none, as its command line does it.

    `split` is what it asks instead of its own test split.
    """
    loaded = _manager(name, path).load(name)
    if list(loaded["tasks"]) != [name]:
        raise SelfdevError(f"task {name!r} of lm-evaluation-harness is a group; name one of its tasks.")
    task = loaded["tasks"][name]
    if task.get_config("num_fewshot") != 0:
        task.set_config(key="num_fewshot", value=shots)
    if split is not None:
        task.set_config(key="test_split", value=split)
    task.set_fewshot_seed(seed=EXAMPLES_SEED)
    return task


def _manager(name: str, path: str | None) -> Any:
    """The harness's tasks and those of a folder; SelfdevError when this one is not among them."""
    if path is not None and not Path(path).is_dir():
        raise SelfdevError(f"path is {path} and must be a folder with YAML tasks for lm-eval; give one.")
    if path is not None:
        own = TaskManager(include_path=path, include_defaults=False)
        if name in own.all_tasks:
            return own
    if name not in _defaults().all_tasks:
        raise SelfdevError(
            f"task lm-eval:{name} is unknown to lm-evaluation-harness; `lm-eval ls tasks` names its tasks,"
            " and path is for a folder with your own."
        )
    return _defaults()


@cache
def _defaults() -> Any:
    """The harness's own tasks, thousands of files that take long to read."""
    return TaskManager()


def _dev_split(task: Any) -> str | None:
    """The split for dev: validation where the harness tests on test, else train."""
    config = task.config
    if config.test_split is not None and config.validation_split not in (None, config.test_split):
        return str(config.validation_split)
    return None if config.training_split is None else str(config.training_split)


def _questions(task: Any) -> tuple[Question, ...]:
    """All questions in a fixed random order, without examples; the answer is the place in the split."""
    docs = list(task.eval_docs)
    places = list(range(len(docs)))
    random.Random(0).shuffle(places)
    return tuple(
        Question(
            str(task.doc_to_text(docs[place])),
            str(place),
            skill=_kind(docs[place]),
            choices=_choices(task, docs[place]),
        )
        for place in places
    )


def _kind(doc: Mapping[str, Any]) -> str:
    """What kind a question is of, where its data set says it."""
    return next((str(doc[key]) for key in KINDS if isinstance(doc.get(key), str)), "")


def _choices(task: Any, doc: Any) -> tuple[str, ...]:
    return tuple(map(str, task.doc_to_choice(doc))) if task.get_config("doc_to_choice") is not None else ()


def _whole(question: Question) -> str:
    """A question with its choices: some tasks have nothing else that tells one from another."""
    return "\n".join((question.prompt, *question.choices))


def score(
    engine: Engine,
    task: str,
    tensors: Mapping[str, Tensor],
    limit: int = 0,
    *,
    shots: int | None = None,
    batch: int = 64,
    folder: Path | str | None = None,
    chat: bool = False,
) -> Score:
    """Score of the seed with these weights swapped in, on the first `limit` (0: all) questions of a task.

    `folder` holds YAML tasks of your own. SelfdevError when the task's metrics say no right or wrong.
    """
    manager = _manager(task, str(folder) if folder else None)
    engine.swap(tensors)
    found = simple_evaluate(
        model=LivingModel(engine, batch), tasks=[task], num_fewshot=shots, limit=limit or None,
        task_manager=manager, bootstrap_iters=0, log_samples=True, apply_chat_template=chat,
    )  # fmt: skip
    return read_score(found, task)


def read_score(found: Mapping[str, Any], task: str) -> Score:
    """Right and wrong of every question, out of the samples of a task that stands alone."""
    if task not in found["samples"]:
        raise SelfdevError(f"task {task!r} of lm-evaluation-harness is a group; name one of its tasks.")
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    held = found["results"][task]
    strict = next((name for name in STRICT if name in held), None)
    if strict is None:
        raise SelfdevError(f"task {task!r} reports {', '.join(held)}; none of {', '.join(STRICT)} is there.")
    flexible = next((name for name in FLEXIBLE if name in held), strict)
    return Score(_bits(samples, strict), _bits(samples, flexible))


def _bits(samples: Sequence[Mapping[str, Any]], metric: str) -> tuple[bool, ...]:
    name, _, kind = metric.partition(",")
    return tuple(bool(sample[name] == 1) for sample in samples if sample["filter"] == kind)


def _manner(asked: Mapping[str, Any], limit: int) -> tuple[tuple[str, ...], int]:
    """Stop strings and longest reply of a request."""
    until = asked.get("until") or ()
    stops = (until,) if isinstance(until, str) else tuple(until)
    if asked.get("do_sample") and asked.get("temperature"):
        raise SelfdevError("this task of lm-evaluation-harness samples; only greedy ones are answered here.")
    return stops, int(asked.get("max_gen_toks") or limit)
