"""The verb `doctor`: what this machine gives and whether a config can run on it; every problem at once."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from selfdev.config.config import Config
from selfdev.doctor import estimate as arithmetic
from selfdev.doctor.estimate import GIB, Estimate, Load, Size
from selfdev.doctor.models import Looked, ModelFacts, look_at
from selfdev.doctor.scaling import Scaled, scaling
from selfdev.errors import SelfdevError
from selfdev.sandbox import layers, protections


@dataclass(frozen=True, slots=True)
class Gpu:
    """A graphics card by name, its memory in all and free, GiB."""

    name: str
    gib: float
    free_gib: float


@dataclass(frozen=True, slots=True)
class Machine:
    """Processor cores this process may use, GiB of memory, and of disk where the run folder will be."""

    cores: int
    ram_gib: float
    ram_free_gib: float
    disk_free_gib: float
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class Protection:
    """The sandbox here: each layer, and each thing a program was tried on -> whether it was kept from it."""

    layers: dict[str, bool]
    held: dict[str, bool]
    weaker_accepted: bool = False


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Whether all is well, and if not every reason; `assumptions` say what estimates rest on."""

    ok: bool
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    sandbox: Protection
    machine: Machine
    models: tuple[ModelFacts, ...] = ()
    estimates: tuple[Estimate, ...] = ()
    disk_gib: float | None = None
    assumptions: tuple[str, ...] = ()
    scaling: tuple[Scaled, ...] = ()  # the same run with larger models on more GPUs


def examine(config: Config | None = None, folder: Path = Path("runs")) -> Diagnosis:
    """Try the sandbox and, with a config, look at models, questions, space and time; reads headers only."""
    sandbox, problems = _sandbox(config)
    machine = _machine(folder)
    found = Diagnosis(False, tuple(problems), (), sandbox, machine)
    if config is not None:
        found = _with_config(found, config, folder)
    return replace(found, ok=not found.problems)


def _sandbox(config: Config | None) -> tuple[Protection, list[str]]:
    from selfdev.sandbox import selftest

    accepted = config is not None and config.sandbox.accept_weaker
    there = protections()
    active = [name for name, given in there.items() if given]
    lacking = layers.missing(active)
    problems = []
    if lacking and not accepted:
        problems.append(layers.refusal(lacking, active))
    try:
        held = selftest.measure()
    except SelfdevError as error:
        return Protection(there, {}, accepted and bool(lacking)), [*problems, str(error)]
    if not held["computing"]:
        problems.append("an honest program does not run in the sandbox of this machine; please report it")
    open_doors = [what for what, kept in held.items() if not kept and what != "computing"]
    if open_doors and not accepted:
        problems.append(
            f"programs are not kept from {', '.join(open_doors)} on this machine; use a kernel with seccomp"
            " and Landlock, or write sandbox.accept_weaker: true in the config"
        )
    return Protection(there, held, accepted and bool(lacking or open_doors)), problems


def _machine(folder: Path) -> Machine:
    page = os.sysconf("SC_PAGE_SIZE") / GIB
    free = os.sysconf("SC_AVPHYS_PAGES") * page
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024 / GIB  # with what the page cache would give back
    except OSError:
        pass  # not Linux
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    disk = shutil.disk_usage(_existing(folder)).free / GIB
    return Machine(cores, os.sysconf("SC_PHYS_PAGES") * page, free, disk, _gpus())


def _gpus() -> tuple[Gpu, ...]:
    if not Path("/dev/nvidiactl").exists() or importlib.util.find_spec("torch") is None:
        return ()
    import torch

    found = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found.append(Gpu(torch.cuda.get_device_name(number), total / GIB, free / GIB))
    return tuple(found)


def _existing(folder: Path) -> Path:
    """The nearest folder above that exists: there the run folder will be made."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _with_config(found: Diagnosis, config: Config, folder: Path) -> Diagnosis:
    from selfdev.api import model_path

    problems, warnings, assumptions = list(found.problems), list(found.warnings), []
    paths = {name: model_path(given) for name, given in config.models.experts.items()}
    looked = look_at(model_path(config.models.seed), paths, config.models.scope)
    problems += looked.problems
    warnings += looked.warnings
    question, test, wrong = _questions(config, looked)
    problems += wrong + _engine(config, found.machine) + _training(config)
    if folder.is_file():
        problems.append(f"the run folder {folder} is a file; choose another --out")
    if not os.access(_existing(folder), os.W_OK):
        problems.append(
            f"{_existing(folder)} cannot be written; choose another --out or change its permissions"
        )
    size = looked.size
    if size is None:
        size, said = _guessed(config)
        assumptions += said
    load = arithmetic.load_of(config, _prompt_tokens(looked), question, test)
    assumptions += _said(config, load, looked, question)
    estimates: tuple[Estimate, ...] = ()
    disk = None
    if size is not None:
        disk = arithmetic.disk(config, size)
        ram = max(arithmetic.ram(config, size, load).values()) if looked.seed is not None else 0.0
        estimates = _estimates(config, size, load, looked, found.machine)
        problems += _too_little(config, found.machine, ram, disk)
        warnings += _tight(config, found.machine)
    return replace(
        found, problems=tuple(problems), warnings=tuple(warnings), models=looked.facts, estimates=estimates,
        disk_gib=disk, assumptions=tuple(assumptions), scaling=scaling(config, load),
    )  # fmt: skip


def _questions(config: Config, looked: Looked) -> tuple[int | None, int | None, list[str]]:
    """Tokens of a question, test questions, and what is wrong with the task."""
    from selfdev.run import question_problems, questions_of

    try:
        task = questions_of(config)
    except SelfdevError as error:
        return None, None, [str(error)]
    sample = [question.prompt for question in task.dev[:32]]
    counted = [_tokens(looked, prompt) for prompt in sample]
    return max(1, sum(counted) // max(len(counted), 1)), len(task.test), question_problems(config)


def _engine(config: Config, machine: Machine) -> list[str]:
    """What answering lacks here, where it is done here: the device and the engine of the config."""
    if config.ray is not None:
        return []
    from selfdev.engine.vllm import lacking
    from selfdev.workers.devices import resolve

    if config.engine == "vllm":
        return [said] if (said := lacking()) else _crowded(config, machine)
    try:
        resolve(config.device)
    except SelfdevError as error:
        return [str(error)]
    return []


def _training(config: Config) -> list[str]:
    """What would stop the factory's training, hours after the start."""
    from selfdev.factory.training import check_training

    try:
        check_training(config)
    except SelfdevError as error:
        return [str(error)]
    return []


def _crowded(config: Config, machine: Machine) -> list[str]:
    """vLLM takes a GPU of its own."""
    if config.workers > len(machine.gpus):
        return [f"workers is {config.workers} and vllm takes a GPU for each of them; set it to the GPUs here"]
    return []


def _prompt_tokens(looked: Looked) -> int | None:
    from selfdev.factory.factory import prompt

    return _tokens(looked, prompt()) if looked.seed is not None else None


def _tokens(looked: Looked, text: str) -> int:
    """Tokens of a text in the seed's tokenizer; a quarter of its characters where there is none."""
    if looked.seed is None or not (looked.seed.path / "tokenizer.json").exists():
        return len(text) // 4
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(looked.seed.path / "tokenizer.json"))
    return len(tokenizer.encode(text).ids)


def _guessed(config: Config) -> tuple[Size | None, list[str]]:
    """A size from the models' names, for models that are not here."""
    names = [config.models.seed, *config.models.experts.values()]
    named = arithmetic.named_sizes(names)
    if named is None:
        return None, ["no model name tells a number of parameters (such as 7B): there is no estimate"]
    name, count = named
    return arithmetic.assumed_size(count, config.models.scope), [
        f"the seed cannot be opened: {count / 1e9:g} billion parameters are read off the name {name}, in 16"
        " bits, in the shape of Llama, three quarters of them in the MLP layers"
    ]


def _said(config: Config, load: Load, looked: Looked, question: int | None) -> list[str]:
    counted = "counted" if looked.seed is not None else "assumed"
    asked = "counted" if question is not None and looked.seed is not None else "assumed"
    return [
        f"the factory's prompt has {load.prompt} tokens ({counted}), a question {load.question} ({asked});"
        f" {load.test:,} test questions; every batch is decoded to its limit",
        f"low hours: one program in ten merges and is scored on all {config.task.dev} dev questions; high:"
        " all are",
    ]


def _estimates(
    config: Config, size: Size, load: Load, looked: Looked, machine: Machine
) -> tuple[Estimate, ...]:
    gpu = arithmetic.estimate(
        config, load, arithmetic.big_gpu(config, size, load), arithmetic.gpu_memory(config, size, load)
    )
    ram = arithmetic.ram(config, size, load)
    # A machine too small for the run is not measured: that takes minutes with large layers.
    if looked.seed is None or looked.problems or max(ram.values()) > machine.ram_free_gib:
        return (gpu,)
    from selfdev.doctor.measure import measure

    rates = measure(config, looked.seed.path, size, machine.cores)
    return (arithmetic.estimate(config, load, rates, ram), gpu)


def _too_little(config: Config, machine: Machine, ram: float, disk: float) -> list[str]:
    problems = []
    if disk > machine.disk_free_gib:
        problems.append(
            f"the run will write about {disk:.1f} GiB and {machine.disk_free_gib:.1f} GiB of disk are free;"
            " make room or choose another --out"
        )
    if ram > machine.ram_free_gib:
        problems.append(
            f"the run needs about {ram:.1f} GiB of RAM and {machine.ram_free_gib:.1f} GiB are free;"
            f" lower workers (now {config.workers}) or the batches"
        )
    return problems


def _tight(config: Config, machine: Machine) -> list[str]:
    allowed = config.workers * config.sandbox.memory_gb
    if allowed <= machine.ram_free_gib:
        return []
    return [
        f"programs may use {allowed:g} GiB together (workers x sandbox.memory_gb) and"
        f" {machine.ram_free_gib:.1f} GiB are free; lower sandbox.memory_gb"
    ]
