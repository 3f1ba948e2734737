"""Every hostile program against all layers, against the kernel layers without any help from Python, and
against single layers; after each nothing outside has changed and an honest program is given its due."""

from __future__ import annotations

import contextlib
import math
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from evasions import AT_IMPORT, IN_THE_FUNCTION, UNCALLED, UNCALLED_NAMES
from hostile import BY_CLASS as FIRST_WAVE
from hostile import Attack
from sandbox_models import HONEST, honest_result, program, write_models
from second_wave import BY_CLASS as SECOND_WAVE
from world import World, world

from selfdev.checkpoints import ModelView
from selfdev.gate import gate
from selfdev.records import State
from selfdev.sandbox import Limits, Run, Sandbox, layers, protections

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the attacks use Linux calls by number"
)

LIMIT = 0.6  # seconds for the programs that must run into it
PATIENCE = 30.0  # for all others: the machine may be busy
SINGLE = {
    "seccomp": ("no_new_privs", "seccomp"),
    "landlock": ("no_new_privs", "landlock"),
    "namespaces": ("net_namespace", "ipc_namespace", "pid_namespace", "empty_root", "no_new_privs"),
    "rlimits": ("uid", "no_new_privs", "rlimits"),
    "none": (),
}
BY_CLASS = FIRST_WAVE | SECOND_WAVE
EVERY = [pytest.param(a, id=f"{kind}-{a.name}") for kind, attacks in BY_CLASS.items() for a in attacks]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world")) as targets:
        yield targets


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelView, ...]:
    return write_models(tmp_path_factory.mktemp("models"))


def start(models: tuple[ModelView, ...], use: tuple[str, ...]) -> Sandbox:
    absent = [name for name in use if not protections()[name] and name not in ("uid", "pid_namespace")]
    if absent:
        pytest.skip(f"this machine has no {', '.join(absent)}")
    return Sandbox({"models": models}, Limits(PATIENCE, 0.5), accept_weaker=True, use_layers=use)


@pytest.fixture(scope="module")
def full(models: tuple[ModelView, ...]) -> Iterator[Sandbox]:
    with Sandbox({"models": models}, Limits(PATIENCE, 0.5)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def kernel_only(models: tuple[ModelView, ...]) -> Iterator[Sandbox]:
    use = tuple(name for name in layers.ALL if name != "audit")
    with Sandbox({"models": models}, Limits(PATIENCE, 0.5), use_layers=use) as sandbox:
        yield sandbox


def attack(sandbox: Sandbox, target: World, hostile: Attack) -> Run:
    """Run it; check what must hold whatever its state is."""
    limit = LIMIT if hostile.endless or hostile.state is State.TIMED_OUT else PATIENCE
    begin = time.monotonic()
    run = sandbox.run(target.fill(hostile.body), 0, timeout=limit)
    assert time.monotonic() - begin < limit + 2
    assert not worked(run), f"a hole: {hostile.name} got through"
    assert target.harm() == []
    assert len(run.outcome.reason) <= 300
    assert run.outcome.reason.isprintable()
    honest = sandbox.run(HONEST, 0)
    assert honest.tensors is not None, honest.outcome
    assert all(torch.equal(honest.tensors[name], value) for name, value in honest_result().items())
    return run


def worked(run: Run) -> bool:
    """Whether the program got to the line that returns 666 everywhere (664 in bfloat16)."""
    return run.tensors is not None and all(bool((t == 664).all()) for t in run.tensors.values())


@pytest.mark.parametrize("hostile", EVERY)
def test_with_every_layer_the_state_is_the_expected_one(
    full: Sandbox, target: World, hostile: Attack
) -> None:
    outcome = attack(full, target, hostile).outcome
    assert outcome.state is hostile.state, outcome
    assert outcome.reason


@pytest.mark.parametrize("hostile", EVERY)
def test_the_kernel_layers_hold_without_python_watching(
    kernel_only: Sandbox, target: World, hostile: Attack
) -> None:
    attack(kernel_only, target, hostile)


@pytest.mark.parametrize("layer", SINGLE)
def test_a_single_layer_holds_what_is_its_job(
    models: tuple[ModelView, ...], target: World, layer: str
) -> None:
    jobs = [a for attacks in BY_CLASS.values() for a in attacks if layer in a.alone]
    assert jobs
    with start(models, SINGLE[layer]) as sandbox:
        for hostile in jobs:
            attack(sandbox, target, hostile)


# Harmless where they succeed, one or more of every class that reaches outside.
REAL = (
    *("tcp connect", "udp send", "unix connect", "abstract connect", "raw tcp", "open", "torch.from_file"),
    *("torch C writer", "tofile", "raw openat", "chmod", "server's environment", "os.fork", "os.system"),
    *("subprocess", "threads", "raw clone", "kill the parent", "read the server's memory", "torch.os"),
    *("victim's priority", "subclasses", "frames", "switch the hook off"),
    *(
        "cell put to open",
        "function with a made cell",
        "own code in a library's globals",
        "cell of a library",
    ),
    *("names of a code object", "function wrapped by a decorator", "defaults of a function"),
)


def test_without_any_layer_these_attacks_do_succeed(models: tuple[ModelView, ...], tmp_path: Path) -> None:
    """The control: were the attacks broken, the tests above would show nothing."""
    by_name = {a.name: a for attacks in BY_CLASS.values() for a in attacks}
    with start(models, ()) as sandbox:
        for number, name in enumerate(REAL):
            folder = tmp_path / str(number)
            folder.mkdir()
            with world(folder) as targets:
                run = sandbox.run(targets.fill(by_name[name].body), 0, timeout=8)
                assert worked(run), f"{name}: {run.outcome}"


def test_processes_that_outlive_a_program_are_killed(models: tuple[ModelView, ...]) -> None:
    body = """
import os
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        import time
        time.sleep(60)
return dict(seed)"""
    if not protections()["pid_namespace"]:
        pytest.skip("this machine has no process namespaces")
    with start(models, ("pid_namespace",)) as sandbox:
        assert sandbox.run(program(body), 0, timeout=10).outcome.state is State.MERGED
        server = sandbox._server
        assert server is not None
        # The server, and perhaps the worker that waits for the next program; none of the twenty.
        assert len(descendants(server._process.pid)) <= 2


def descendants(pid: int) -> list[int]:
    """Processes below this one, zombies included."""
    listing = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in map(int, listing) for found in (child, *descendants(child))]


def test_a_forged_verdict_gets_no_earlier_programs_weights(kernel_only: Sandbox) -> None:
    body = """
import os, sys
frame = sys._getframe()
while "status" not in frame.f_locals:
    frame = frame.f_back
frame.f_locals["status"].conclude(1)
os._exit(0)"""
    assert kernel_only.run(HONEST, 0).outcome.state is State.MERGED
    forged = kernel_only.run(program(body), 0)
    assert forged.tensors is not None
    assert all(not bool(t.any()) for t in forged.tensors.values())


def test_the_result_of_one_program_is_not_shown_to_the_next(kernel_only: Sandbox) -> None:
    body = """
import sys
frame = sys._getframe()
while "target" not in frame.f_locals:
    frame = frame.f_back
assert not any(bool(tensor.any()) for _, tensor in frame.f_locals["target"])
return dict(seed)"""
    assert kernel_only.run(HONEST, 0).outcome.state is State.MERGED
    assert kernel_only.run(program(body), 0).outcome.state is State.MERGED


def test_a_program_cannot_reach_the_result_of_another_set(models: tuple[ModelView, ...]) -> None:
    body = """
import sys
frame = sys._getframe()
while "targets" not in frame.f_locals:
    frame = frame.f_back
for target in frame.f_locals["targets"]:
    for _, tensor in target:
        tensor.fill_(7)
return dict(seed)"""
    sets = {"models": models, "probes": models[:2]}
    use = tuple(name for name in layers.ALL if name != "audit")
    with Sandbox(sets, Limits(PATIENCE, 0.5), use_layers=use) as sandbox:
        kept = sandbox.run(HONEST, 0).tensors
        assert kept is not None
        assert sandbox.run(program(body), 0, on="probes").outcome.state is State.CRASHED
        assert all(torch.equal(kept[name], value) for name, value in honest_result().items())


def test_the_text_of_one_program_is_not_left_for_the_next(kernel_only: Sandbox) -> None:
    secret = "a rather unusual sentence"
    kernel_only.run(program(f"x = '{secret}'\nreturn None"), 0)
    body = """
import gc, sys
frame = sys._getframe()
while "status" not in frame.f_locals:
    frame = frame.f_back
held = bytes(frame.f_locals["status"]._area)
assert b"a rather " + b"unusual sentence" not in held
return dict(seed)"""
    assert kernel_only.run(program(body), 0).outcome.state is State.MERGED


@pytest.mark.parametrize("text", [*AT_IMPORT, *UNCALLED, *UNCALLED_NAMES, *IN_THE_FUNCTION])
def test_the_gate_turns_evasions_away_and_runs_nothing(target: World, text: str) -> None:
    with pytest.raises(gate.Rejected):
        gate.check(text.replace("@CANARY@", str(target.canary)))
    assert target.harm() == []


@pytest.mark.parametrize("text", UNCALLED)
def test_python_would_run_these_at_import(text: str) -> None:
    """The control: what they call is a harmless list."""
    names: dict[str, Any] = {"__name__": "program", "torch": torch, "math": math, "ran": []}
    with contextlib.suppress(Exception):
        exec(text, names)
    torch.nn.modules.module._global_forward_hooks.clear()
    assert names["ran"]


REACHING = (
    *("network", "files", "environment", "processes", "signals", "escape"),
    *("native", "kernel", "corners", "closures"),
)


@pytest.mark.parametrize("kind", REACHING)
def test_the_gate_alone_refuses_what_reaches_outside(target: World, kind: str) -> None:
    for hostile in BY_CLASS[kind]:
        with pytest.raises(gate.Rejected):
            gate.check(target.fill(hostile.body).code)
