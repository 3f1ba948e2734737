"""What the sandbox promises to honest callers and honest programs; attacks have a folder of their own."""

from __future__ import annotations

import dataclasses
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sandbox_models import HONEST, NAMES, honest_result, program, weights, write_models

from selfdev.checkpoints import ModelView
from selfdev.errors import SelfdevError
from selfdev.records import Program, State
from selfdev.sandbox import Limits, Sandbox, inputs, layers, layout, protections, seccomp, verdict
from selfdev.sandbox.result import Result

FULL = layers.ALL
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel layers are Linux's")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelView, ...]:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def sandbox(models: tuple[ModelView, ...]) -> Iterator[Sandbox]:
    sets = {"models": models, "probes": models[:2]}
    with Sandbox(sets, Limits(seconds=30, memory_gb=0.5)) as running:
        yield running


def test_the_result_of_a_program_is_what_the_formula_says(sandbox: Sandbox) -> None:
    run = sandbox.run(HONEST, 0)
    assert run.outcome.state is State.MERGED
    assert run.tensors is not None
    assert list(run.tensors) == list(NAMES)
    for name, value in honest_result().items():
        assert torch.equal(run.tensors[name], value)


def test_a_program_sees_the_experts_in_order_as_plain_dicts(sandbox: Sandbox) -> None:
    body = """
assert list(models) == ["seed", "one", "two"], list(models)
assert type(models) is dict and type(seed) is dict
assert all(type(t) is torch.Tensor and t.dtype is torch.bfloat16 for t in seed.values())
assert device == torch.device("cpu")
return {n: math.sqrt(4.0) * t for n, t in seed.items()}"""
    assert sandbox.run(program(body), 0).outcome.state is State.MERGED


def test_another_set_has_its_own_models_and_result(sandbox: Sandbox) -> None:
    run = sandbox.run(program("assert len(models) == 2\nreturn dict(seed)"), 0, on="probes")
    assert run.outcome.copy_of == "seed"


def test_float32_views_are_converted_and_the_result_is_stored_like_the_seed(tmp_path: Path) -> None:
    shown = write_models(tmp_path, "F32")
    body = (
        "assert seed[min(seed)].dtype is torch.float32\nreturn {n: seed[n] + models['two'][n] for n in seed}"
    )
    with Sandbox({"models": shown}, Limits(30, 0.5)) as running:
        tensors = running.run(program(body), 0).tensors
        assert tensors is not None
        for name in NAMES:
            exact = weights("seed")[name].float() + weights("two")[name].float()
            assert torch.equal(tensors[name], exact.to(torch.bfloat16))


@pytest.mark.parametrize("name", ["seed", "one", "two"])
def test_a_copy_of_a_model_is_labelled(sandbox: Sandbox, name: str) -> None:
    run = sandbox.run(program(f"return {{n: t.double() for n, t in models[{name!r}].items()}}"), 0)
    assert run.outcome.copy_of == name


def test_a_merge_is_no_copy(sandbox: Sandbox) -> None:
    assert sandbox.run(HONEST, 0).outcome.copy_of is None


def test_results_may_come_in_any_float_type_layout_and_order(sandbox: Sandbox) -> None:
    body = "return {n: seed[n].double().t().contiguous().t() for n in reversed(list(seed))}"
    run = sandbox.run(program(body), 0)
    assert run.outcome.copy_of == "seed"


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(sandbox: Sandbox) -> None:
    body = "return {n: t + torch.randn_like(t) for n, t in seed.items()}"
    first, again, other = (sandbox.run(program(body), s).outcome.weights_hash for s in (5, 5, 6))
    assert first == again
    assert first != other


def test_random_and_numpy_are_seeded_too(sandbox: Sandbox) -> None:
    body = """
import random
import numpy as np
noise = random.random() + np.random.rand() + len(set("abcdef")) * 0 + hash("text") % 7
return {n: t + noise for n, t in seed.items()}"""
    assert len({sandbox.run(program(body), 5).outcome.weights_hash for _ in range(2)}) == 1


def test_the_hash_depends_on_the_weights_only(sandbox: Sandbox) -> None:
    other = program("return {n: (t + models['one'][n] * 0).clone() for n, t in seed.items()}")
    plain = program("return dict(seed)")
    assert sandbox.run(other, 1).outcome.weights_hash == sandbox.run(plain, 2).outcome.weights_hash


WRONG = {
    "return None": (State.BAD_WEIGHTS, "must return a dict"),
    "return list(seed)": (State.BAD_WEIGHTS, "returned a list"),
    "return {}": (State.BAD_WEIGHTS, "lacks 3 of 3 parameters"),
    "return {**seed, 'x': seed[min(seed)]}": (State.BAD_WEIGHTS, "1 names"),
    "return {n: t[:2] for n, t in seed.items()}": (State.BAD_WEIGHTS, "shape [2, 6]; the seed's is [8, 6]"),
    "return {n: t.int() for n, t in seed.items()}": (State.BAD_WEIGHTS, "torch.int32"),
    "return {n: 1.0 for n in seed}": (State.BAD_WEIGHTS, "a float"),
    "return {n: t / 0 for n, t in seed.items()}": (State.BAD_WEIGHTS, "NaN or infinity"),
    "return {n: t.float() * 1e39 for n, t in seed.items()}": (State.BAD_WEIGHTS, "NaN or infinity"),
    "return missing_name": (State.CRASHED, "(line 3: return missing_name)"),
    "raise SystemExit": (State.CRASHED, "SystemExit"),
    "seed[min(seed)].mul_(2)": (State.CRASHED, "at line 3 of the program: input tensors are read-only"),
    "while True: pass": (State.TIMED_OUT, "not finished after 0.5 s"),
    "import time\ntime.sleep(60)": (State.TIMED_OUT, "0.5 s"),
    "return torch.zeros(10**12)": (State.OUT_OF_MEMORY, "allocate"),
    "return bytearray(10**12)": (State.OUT_OF_MEMORY, "MemoryError"),
    "while True: print('x' * 5000)": (State.CRASHED, "printed more than 256 kB"),
    "return open('/etc/hostname')": (State.FORBIDDEN, "open('/etc/hostname'"),
}


@pytest.mark.parametrize("body", WRONG)
def test_failures_are_states_with_a_reason_that_helps(sandbox: Sandbox, body: str) -> None:
    state, words = WRONG[body]
    run = sandbox.run(program(body), 0, timeout=0.5 if state is State.TIMED_OUT else 30)
    assert run.outcome.state is state
    assert words in run.outcome.reason
    assert len(run.outcome.reason) <= 300
    assert run.tensors is None
    assert run.outcome.seconds < (2.5 if state is State.TIMED_OUT else 32)


def test_the_last_lines_of_stderr_are_kept_without_machine_paths(sandbox: Sandbox) -> None:
    stderr = sandbox.run(program("print('before\\x1b[2J')\nraise ValueError('why')"), 0).outcome.stderr
    assert stderr.startswith("before [2J")
    assert stderr.endswith("ValueError: why")
    assert "child.py" not in stderr


def test_programs_as_models_write_them_run(sandbox: Sandbox) -> None:
    body = """
import copy
import torch.nn.functional as F
out = copy.deepcopy(seed)
weight = torch.nn.Parameter(torch.zeros(1))
optimizer = torch.optim.Adam([weight], lr=0.1)
((weight - 1) ** 2).sum().backward()
optimizer.step()
print(out)
for name in out:
    u, s, v = torch.linalg.svd(models["one"][name].float() - seed[name].float(), full_matrices=False)
    similarity = F.cosine_similarity(seed[name].flatten(), models["two"][name].flatten(), dim=0)
    out[name].add_(similarity * (u[:, :2] @ torch.diag(s[:2]) @ v[:2]))
return out"""
    assert sandbox.run(program(body), 0).outcome.state is State.MERGED


def test_nothing_of_a_program_is_left_for_the_next(sandbox: Sandbox) -> None:
    assert sandbox.run(program("torch.add = None\ntorch.set_default_dtype(torch.float64)"), 0).tensors is None
    body = (
        "assert torch.add is not None\nassert torch.get_default_dtype() is torch.float32\nreturn dict(seed)"
    )
    assert sandbox.run(program(body), 0).outcome.state is State.MERGED


def test_a_too_long_program_is_invalid(sandbox: Sandbox) -> None:
    long = Program("#" * (layout.MAX_CODE_BYTES + 1))
    assert sandbox.run(long, 0).outcome.state is State.INVALID


def test_a_killed_server_is_replaced_and_no_programs_fault(models: tuple[ModelView, ...]) -> None:
    with Sandbox({"models": models}, Limits(30, 0.5)) as running:
        server = running._server
        assert server is not None
        server._process.kill()
        server._process.wait()
        assert running.run(HONEST, 0).outcome.state is State.MERGED
        assert running.run(HONEST, 0).outcome.state is State.MERGED


def test_an_interrupt_in_the_middle_leaves_a_usable_sandbox(
    models: tuple[ModelView, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox({"models": models}, Limits(30, 0.5)) as running:
        server = running._server
        assert server is not None

        def interrupted(*_: object) -> None:
            server._send({"run": "models", "seconds": 2})
            raise KeyboardInterrupt

        monkeypatch.setattr(server, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            running.run(HONEST, 0)
        assert running.run(HONEST, 0).outcome.state is State.MERGED


@linux
def test_the_server_dies_with_its_parent(tmp_path: Path) -> None:
    write_models(tmp_path / "m")
    code = """
import os, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
from pathlib import Path
from sandbox_models import program
from selfdev.checkpoints import open_checkpoint, views
from selfdev.sandbox import Sandbox
root = Path(sys.argv[2])
seed, one = (open_checkpoint(root / n, n) for n in ("seed", "one"))
box = Sandbox({"models": views(seed, [one], "mlp", None)})
print(box._server._process.pid, flush=True)
box.run(program("while True: pass"), 0, timeout=60)
"""
    places = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    caller = subprocess.Popen(
        [sys.executable, "-c", code, places, str(tmp_path / "m")], stdout=subprocess.PIPE, text=True
    )
    assert caller.stdout is not None
    server = int(caller.stdout.readline())
    time.sleep(0.3)
    caller.kill()
    caller.wait()
    caller.stdout.close()
    deadline = time.monotonic() + 5
    while session_members(server) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert session_members(server) == []


def session_members(leader: int) -> list[int]:
    """Living processes that descend from the server: its session's, or children of those."""
    family = {leader}
    for _ in range(3):
        for entry in Path("/proc").iterdir():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if entry.name.isdigit() and fields[0] != "Z" and {int(fields[1]), int(fields[3])} & family:
                family.add(int(entry.name))
    return [pid for pid in family if Path(f"/proc/{pid}").exists()]


def test_a_sandbox_started_in_a_thread_outlives_it_and_stands_beside_others(
    models: tuple[ModelView, ...], sandbox: Sandbox
) -> None:
    started: list[Sandbox] = []
    thread = threading.Thread(target=lambda: started.append(Sandbox({"models": models}, Limits(30, 0.5))))
    thread.start()
    thread.join()
    torch.ones(500, 500) @ torch.ones(500, 500)
    with started[0] as other:
        hashes = {box.run(HONEST, 0).outcome.weights_hash for box in (other, sandbox, other)}
    assert len(hashes) == 1
    assert None not in hashes


@linux
def test_the_server_shows_no_secret_of_the_caller(models: tuple[ModelView, ...]) -> None:
    os.environ["SELFDEV_SECRET"] = "secret"
    try:
        with Sandbox({"models": models}) as running:
            assert running._server is not None
            shown = Path(f"/proc/{running._server._process.pid}/environ").read_bytes()
    finally:
        del os.environ["SELFDEV_SECRET"]
    assert b"OMP_NUM_THREADS=1" in shown
    assert b"secret" not in shown


def test_close_ends_the_server(models: tuple[ModelView, ...]) -> None:
    running = Sandbox({"models": models})
    server = running._server
    assert server is not None
    running.close()
    assert server._process.returncode is not None
    running.close()


@linux
def test_entering_is_fast(sandbox: Sandbox) -> None:
    # The figure of record is in benchmarks; here only a gross loss would show, the machine may be busy.
    entered = sorted(sandbox.run(HONEST, 0).entered or 9 for _ in range(15))
    assert entered[3] < 0.1


def test_more_threads_only_when_the_limits_say_so(models: tuple[ModelView, ...]) -> None:
    body = """
import threading
assert torch.get_num_threads() == 2
other = threading.Thread(target=print)
other.start()
other.join()
x = torch.ones(2000, 2000)
assert bool((x @ x == 2000).all())
return dict(seed)"""
    with Sandbox({"models": models}, Limits(10, 0.5, threads=2)) as running:
        assert running.run(program(body), 0).outcome.copy_of == "seed"
        assert running.run(program("import os\nos.fork()"), 0).outcome.state is State.FORBIDDEN


def test_a_longer_time_than_usual_can_be_asked_for(models: tuple[ModelView, ...]) -> None:
    with Sandbox({"models": models}, Limits(0.3, 0.5)) as running:
        spin = (
            "import time\nend = time.monotonic() + 3\nwhile time.monotonic() < end: pass\nreturn dict(seed)"
        )
        assert running.run(program(spin), 0).outcome.state is State.TIMED_OUT
        assert running.run(program(spin), 0, timeout=30).outcome.state is State.MERGED


def test_a_waiting_worker_that_was_killed_is_not_the_next_programs_fault(
    models: tuple[ModelView, ...],
) -> None:
    with Sandbox({"models": models}, Limits(30, 0.5), use_layers=["rlimits"], accept_weaker=True) as running:
        assert running._server is not None
        server = running._server._process.pid
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        assert len(children) == 1
        os.kill(int(children[0]), 9)
        time.sleep(0.1)
        assert running.run(HONEST, 0).outcome.state is State.MERGED


@linux
def test_the_protections_of_this_machine_are_those_a_sandbox_uses(sandbox: Sandbox) -> None:
    assert sandbox.layers == {name for name, there in protections().items() if there}
    assert list(protections()) == list(FULL)


def test_without_file_and_network_confinement_a_run_is_refused(models: tuple[ModelView, ...]) -> None:
    with pytest.raises(SelfdevError, match=r"kept from files and network .*accept_weaker"):
        Sandbox({"models": models}, use_layers=["rlimits"])
    with Sandbox({"models": models}, use_layers=["rlimits"], accept_weaker=True) as weaker:
        assert weaker.layers == {"rlimits"}
        assert weaker.run(HONEST, 0).outcome.state is State.MERGED


@pytest.mark.parametrize(
    ("active", "lacking"),
    [
        ({"seccomp"}, []),
        ({"landlock"}, ["network"]),
        ({"net_namespace"}, ["files"]),
        ({"landlock", "net_namespace"}, []),
        ({"rlimits", "audit", "uid"}, ["files", "network"]),
    ],
)
def test_what_counts_as_confined(active: set[str], lacking: list[str]) -> None:
    assert layers.missing(active) == lacking


def report(**changes: object) -> layout.Report:
    blank = layout.Report(0, layout.Verdict.NOTHING, "", "")
    return dataclasses.replace(blank, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("exit_code", "stopped", "output", "state"),
    [
        (-31, "", b"", State.FORBIDDEN),
        (-24, "", b"", State.TIMED_OUT),
        (-9, "time", b"", State.TIMED_OUT),
        (-9, "", b"", State.OUT_OF_MEMORY),
        (-6, "", b"std::bad_alloc", State.OUT_OF_MEMORY),
        (-6, "", b"", State.CRASHED),
        (-11, "", b'File "<program>", line 7 in f', State.CRASHED),
        (-60, "", b"", State.CRASHED),
        (0, "", b"", State.CRASHED),
        (None, "", b"", State.CRASHED),
        (None, "time", b"", State.TIMED_OUT),
    ],
)
def test_every_way_a_child_can_end_has_a_state(
    exit_code: int | None, stopped: str, output: bytes, state: State
) -> None:
    found, reason = verdict.decide(exit_code, stopped, output, report(), 1.0)
    assert found is state
    assert reason


def test_a_noted_attempt_makes_any_end_forbidden() -> None:
    noted = report(verdict=layout.Verdict.MERGED, forbidden="os.fork()")
    assert verdict.decide(0, "", b"", noted, 1.0) == (State.FORBIDDEN, "the program tried os.fork()")


def test_a_forged_status_is_read_as_text_of_bounded_length() -> None:
    handle = layout.shared_memory(layout.STATUS_BYTES)
    status = layout.Status(handle)
    status.put_job("code", 1)
    os.pwrite(handle, b"\xff" * 4096, 0)
    found = status.report()
    assert found.verdict is layout.Verdict.NOTHING
    assert len(found.reason) <= 2000
    assert found.reason.isprintable()
    status.close()
    os.close(handle)


def test_a_job_arrives_as_it_was_sent() -> None:
    handle = layout.shared_memory(layout.STATUS_BYTES)
    status = layout.Status(handle)
    status.put_job("x = 'ä\ud800'", 12)
    assert status.take_job() == ("x = 'ä\ud800'", 12)
    status.put_job("y", 3)
    assert status.take_job() == ("y", 3)
    status.close()
    os.close(handle)


def test_the_system_call_lists_do_not_overlap() -> None:
    tables = [seccomp._ALLOWED, seccomp._NO_FILE, seccomp._DEADLY, seccomp._CHECKED, seccomp._DEVICE]
    for column in (0, 1):
        numbers = [pair[column] for table in tables for pair in table.values() if pair[column] >= 0]
        assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_fits_the_kernel_and_names_the_process(machine: str) -> None:
    first, second = (seccomp.build(machine, pid) for pid in (0x1234567, 0x7654321))
    assert len(first) // 8 < 4096
    assert first.replace((0x1234567).to_bytes(4, "little"), (0x7654321).to_bytes(4, "little")) == second
    assert first.count((0x1234567).to_bytes(4, "little")) == 3


def test_a_torch_that_knows_gpus_finds_none_and_asks_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    # A look for GPUs starts a thread of the driver, also where none is to be seen.
    monkeypatch.setattr(torch._C, "_cuda_getDeviceCount", lambda: 7, raising=False)
    inputs.leave_out_gpus()
    assert torch._C._cuda_getDeviceCount() == 7  # of a torch without CUDA nothing is changed
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    inputs.leave_out_gpus()
    assert torch._C._cuda_getDeviceCount() == 0
    assert not torch.cuda.is_available()
    assert torch.cuda.device_count() == 0


def test_what_a_program_left_is_gone_for_the_next_and_what_nobody_wrote_is_not_touched(
    models: tuple[ModelView, ...],
) -> None:
    result = Result(models)
    # The kernel shares whole pages: there is no place behind the end that nobody clears.
    assert len(result._area) % mmap.PAGESIZE == 0
    assert layout.STATUS_BYTES % mmap.PAGESIZE == 0
    for _ in range(2):
        result.clear()
        assert not result._is_written()
    area = torch.frombuffer(result._area, dtype=torch.uint8)
    area[-1] = 7
    assert result._is_written()
    result.clear()
    assert not area.any()
    area[:] = 9
    result.give_back()
    assert not result._is_written()
    assert not area.any()
    result.close()
