"""The jobs of a worker process, which holds the models, a sandbox and a living engine.

Every result depends on the job alone, never on which worker did it or when.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from selfdev.checkpoints import Checkpoint, ModelView, tensor
from selfdev.config.task import TaskBesides
from selfdev.engine import sanity
from selfdev.engine.scorer import ask, prepare, score
from selfdev.engine.scorer import examine as examine_model
from selfdev.errors import SelfdevError
from selfdev.fingerprint import change, fingerprint, nearest
from selfdev.gate import gate
from selfdev.lineage import Parents
from selfdev.race import blocks, is_hopeless
from selfdev.records import Outcome, Program, Replies, Score, State
from selfdev.sandbox import Limits
from selfdev.tasks.grading import Grader, Lead
from selfdev.tasks.questions import ExamName, exam_questions
from selfdev.tasks.tasks import Task, load_besides, load_task
from selfdev.workers.devices import Device
from selfdev.workers.heap import keep_freed_memory
from selfdev.workers.living import Living
from selfdev.workers.merging import Merging, open_merging

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from selfdev.engine.scorer import Exam

Subject = Checkpoint | tuple[str, int, Parents | None]  # a whole model, or a program: code, seed, parents


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything a worker needs to start."""

    seed: Checkpoint
    experts: tuple[Checkpoint, ...]
    scope: str
    dtype: str | None
    seconds: float
    memory_gb: float
    accept_weaker: bool
    task: str
    shots: int
    sizes: Mapping[str, int]  # questions of dev, finalist_dev and test (0: all)
    first_block: int  # see selfdev.race; 0: programs are never stopped
    limit: int
    batch: int
    threads: int
    known: Mapping[str, str]  # name -> code of the human-designed methods
    probes: tuple[ModelView, ...]
    path: str | None = None  # of gsm8k and math, see selfdev.tasks.tasks
    grader: Grader | None = None
    dev_from_test: int = 0
    chat: bool = False
    lead: Lead = "strict"
    sanity: int = 0  # dev questions of the look before a score, see selfdev.engine.sanity; 0: none
    skills: tuple[str, ...] = ()  # of the lab that are asked; none named: all
    factory: Path | None = None  # a model with the factories' architecture and tokenizer; None: the seed
    device: Device = "cpu"  # of models that write and answer
    engine: Literal["transformers", "vllm"] = "transformers"  # what answers


@dataclass(frozen=True, slots=True)
class Written:
    """Programs of a factory, and of how many tokens."""

    texts: list[str]
    tokens: int


@dataclass(frozen=True, slots=True)
class Probed:
    """What gate and probes say of a text. `outcome` is MERGED when the program may go on."""

    code: str
    outcome: Outcome
    fingerprint: str | None = None
    nearest: str | None = None
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """How a program ended on the real models, with its score when it merged."""

    outcome: Outcome
    score: Score | None
    replies: Replies | None = None  # of an examination


@dataclass(slots=True)
class _State:
    """What lives in one worker process."""

    setup: Setup
    merging: Merging
    models: Living
    exams: dict[tuple[ExamName | TaskBesides, int, int | None], Exam]
    task: Task
    sanity: tuple[sanity.Probe, sanity.Look] | None = None  # and what the seed says


_state: _State  # set once per worker process


def start(setup: Setup) -> None:
    """Open the models, start sandbox and engine; SelfdevError where this machine lacks a file."""
    global _state
    _state = _made(setup)


def _made(setup: Setup) -> _State:
    import torch

    torch.set_num_threads(setup.threads)
    torch.set_flush_denormal(True)
    keep_freed_memory()
    merging = _opened(setup, Parents(1, setup.seed, setup.experts, setup.probes))
    task = load_task(
        setup.task,
        setup.shots,
        path=setup.path,
        grader=setup.grader,
        dev_from_test=setup.dev_from_test,
        skills=setup.skills,
    )
    living = Living(setup.seed.path, setup.factory or setup.seed.path, setup.device, setup.engine)
    return _State(setup, merging, living, {}, task)


def _opened(setup: Setup, parents: Parents) -> Merging:
    check_files(parents)
    limits = Limits(setup.seconds, setup.memory_gb, setup.threads)
    return open_merging(parents, setup.scope, setup.dtype, limits, setup.accept_weaker, setup.known)


def check_files(parents: Parents) -> None:
    """SelfdevError when a file of the models is not here: another machine may have written it."""
    slots = [slot for model in (parents.seed, *parents.experts) for slot in model.slots.values()]
    slots += [slot for view in parents.probes for slot in view.slots]
    lengths: dict[Path, int] = {}
    for slot in slots:
        lengths[slot.file] = max(lengths.get(slot.file, 0), slot.offset + slot.nbytes)
    for file, length in lengths.items():
        if not file.is_file() or file.stat().st_size < length:
            raise SelfdevError(
                f"{platform.node()} lacks {file} or has a shorter one; models, run folder and ray.scratch"
                " must lie at the same path on every machine that works."
            )


def _merging(parents: Parents | None) -> Merging:
    """A sandbox with these parents (None: those of the setup): the last one that was used, or a new one."""
    setup = _state.setup
    wanted = parents or Parents(1, setup.seed, setup.experts, setup.probes)
    if wanted.number != _state.merging.parents.number:
        _state.merging.sandbox.close()
        _state.merging = _opened(setup, wanted)
    return _state.merging


def write(factory: Path, prompt: str, temperature: float, uniforms: np.ndarray) -> Written:
    """Texts sampled from a factory, one per row of `uniforms` ([rows, longest], 0..1)."""
    import torch
    from safetensors.torch import load_file

    files = sorted(factory.glob("*.safetensors"))
    if not files:
        raise SelfdevError(
            f"factory {factory} has no weights on {platform.node()}; give the same command again, with a run"
            " folder that every machine sees."
        )
    weights = {name: value for file in files for name, value in load_file(file).items()}
    writer = _state.models.writer
    writer.load(weights)
    before = writer.tokens
    texts = writer.sample(prompt, temperature, torch.from_numpy(uniforms))
    return Written(texts, writer.tokens - before)


def probe(text: str, seed: int, parents: Parents | None) -> Probed:
    """Gate, then behaviour on the probes."""
    try:
        program = gate.check(text)
    except gate.Rejected as refusal:
        return Probed("", Outcome(State.INVALID, str(refusal)))
    on = _merging(parents)
    run = on.sandbox.run(program, seed, on="probes")
    if run.tensors is None:
        return Probed(program.code, run.outcome)
    moved = change(on.parents.probes, run.tensors)
    near = nearest(moved, on.known)
    # The same change of another seed makes another model.
    line = "" if on.parents.number == 1 else f"{on.parents.number}:"
    return Probed(
        program.code,
        run.outcome,
        line + fingerprint(moved),
        near.name if near else None,
        near.distance if near else None,
    )


def try_program(code: str, seed: int, exam: ExamName, bar: float, parents: Parents | None) -> Tried:
    """Run on the real models and score the result."""
    on = _merging(parents)
    run = on.sandbox.run(Program(code), seed)
    if run.tensors is None:
        return Tried(run.outcome, None)
    gibberish = _gibberish(run.tensors) if exam == "dev" and _state.setup.sanity else None
    if gibberish:
        return Tried(replace(run.outcome, state=State.BAD_WEIGHTS, reason=gibberish[:300]), None)
    parts = blocks(_state.setup.first_block, _state.setup.sizes["dev"])
    if exam != "dev" or len(parts) == 1:
        return Tried(run.outcome, score(_state.models.engine, _exam(exam), run.tensors))
    return Tried(run.outcome, _raced(run.tensors, max(bar, _seed_accuracy(on)), parts))


def _raced(weights: Mapping[str, Tensor], bar: float, parts: Sequence[tuple[int, int]]) -> Score:
    """The score on dev, or what there is of it when it can hardly end at the bar."""
    engine = _state.models.engine
    engine.swap(weights)  # once: what is computed of the examples before the questions would go with them
    results = Score((), (), _state.setup.lead)
    n = parts[-1][1]
    for start, stop in parts:
        results += ask(engine, _exam("dev", start, stop))
        if stop < n and is_hopeless(results, bar, n, len(parts) - 1):
            break
    return results


def examine(subject: Subject, exam: ExamName | TaskBesides) -> Tried:
    """Score a checkpoint as it is, or what a program makes, and note how it replies."""
    outcome, weights = _weights(subject)
    if weights is None:
        return Tried(outcome, None)
    result, replies = examine_model(_state.models.engine, _exam(exam), weights)
    return Tried(outcome, result, replies)


def _weights(subject: Subject) -> tuple[Outcome, Mapping[str, Tensor] | None]:
    if isinstance(subject, tuple):
        code, seed, parents = subject
        run = _merging(parents).sandbox.run(Program(code), seed)
        return run.outcome, run.tensors
    return Outcome(State.MERGED), _weights_of(subject)


def _weights_of(model: Checkpoint) -> dict[str, Tensor]:
    held = _state.models.engine.names  # without buffers and the second copy of a tied embedding
    return {name: tensor(slot) for name, slot in model.slots.items() if name in held}


def _gibberish(tensors: Mapping[str, Tensor]) -> str | None:
    """Why a merged model is not worth a score, by the first dev questions; None when it is."""
    if _state.sanity is None:
        task = _state.task
        probe = sanity.prepare(_state.models.engine, task.split("dev")[: _state.setup.sanity], task.stops)
        _state.sanity = probe, sanity.look(_state.models.engine, probe, {})
    probe, seed = _state.sanity
    return sanity.complaint(sanity.look(_state.models.engine, probe, tensors, seed), seed)


def _seed_accuracy(on: Merging) -> float:
    """The accuracy on dev of the seed that is merged, measured once per worker."""
    if on.seed_accuracy is None:
        weights = {} if on.parents.number == 1 else _weights_of(on.parents.seed)
        on.seed_accuracy = score(_state.models.engine, _exam("dev"), weights).accuracy
    return on.seed_accuracy


def _exam(asked: ExamName | TaskBesides, start: int = 0, stop: int | None = None) -> Exam:
    """Questions of a stage from `start` to `stop`, or of a task besides, made ready at first use."""
    key = (asked, start, stop)
    if key not in _state.exams:
        setup, task, limit = _state.setup, _state.task, _state.setup.limit
        if isinstance(asked, str):
            questions = exam_questions(task, asked, setup.sizes)[start:stop]
        else:
            (task, questions), limit = load_besides(asked), asked.max_new_tokens
        _state.exams[key] = prepare(
            _state.models.engine, questions, limit, setup.batch,
            stops=task.stops, grader=task.grader, lead=setup.lead, chat=setup.chat,
            source=task.source, split="dev" if asked in ("dev", "finalist_dev") else "test",
        )  # fmt: skip
    return _state.exams[key]
