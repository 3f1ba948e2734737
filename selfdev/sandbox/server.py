"""The warm process a program is forked from: torch imported, models mapped read-only, one thread.

It is started with a clean environment, keeps no text of any program, and ends when its parent does.
Messages on the control socket are lines of JSON; programs and results travel through shared memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import mmap
import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING, Any, NoReturn

from selfdev.sandbox import kernel, layers

if TYPE_CHECKING:
    from selfdev.sandbox.child import Models, Target

MAX_HANDLES = 253  # Linux passes no more at once


def main(control_handle: int) -> NoReturn:
    """Enter the namespaces, get warm, take the models from the parent, serve until it ends."""
    control = Control(socket.socket(fileno=control_handle))
    first = control.receive()
    control.watch(first["parent"])
    uid = layers.private_id()
    wanted = frozenset(first["layers"])
    entered = layers.enter_namespaces(wanted)
    if "pid_namespace" in entered:
        _fork_into_namespace()
    from selfdev.sandbox import inputs
    from selfdev.workers.heap import keep_freed_memory

    keep_freed_memory()  # programs inherit it: a fifth of the time of merging large models
    if not first["nodes"]:
        inputs.leave_out_gpus()
    inputs.exercise(autograd=not first["nodes"] and not inputs.knows_gpus())
    server = Server(control, first | control.receive(), uid)
    if "empty_root" in wanted and not first["nodes"] and layers.empty_root():
        entered.add("empty_root")
    server.find_layers(wanted, entered)
    server.serve()


def _fork_into_namespace() -> None:
    """The new process namespace begins with our first child: that goes on as the server, we wait for it."""
    server = os.fork()
    if server == 0:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    kernel.close_from(1)
    _, state = os.waitpid(server, 0)
    os._exit(os.waitstatus_to_exitcode(state) & 0xFF)


class Control:
    """The line to the parent; ends this process when the parent is gone, however it went."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._pending = b""
        self._poll = select.poll()
        self._poll.register(line, select.POLLIN)
        self._parent: int | None = None
        self.handles: list[int] = []  # descriptors of shared memory that came with the messages

    def watch(self, parent: int) -> None:
        """Also notice a parent whose end of the line lives on in a process it forked."""
        with contextlib.suppress(AttributeError, OSError):
            self._parent = os.pidfd_open(parent)
            self._poll.register(self._parent, select.POLLIN)

    def wake_by(self, handle: int) -> None:
        """Let `wait` return when this descriptor has something to read."""
        self._poll.register(handle, select.POLLIN)

    def wait(self, leftover: int | None = None) -> set[int]:
        """Block until something happens; kills the process group `leftover` if the parent is gone."""
        ready = {handle for handle, _ in self._poll.poll()}
        if self._parent in ready:
            _end(leftover)
        return ready

    def receive(self, leftover: int | None = None) -> dict[str, Any]:
        """The parent's next message."""
        while b"\n" not in self._pending:
            data, handles, _, _ = socket.recv_fds(self._line, 1 << 16, MAX_HANDLES)
            if not data:
                _end(leftover)
            self.handles += handles
            self._pending += data
        line, self._pending = self._pending.split(b"\n", 1)
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    def readable(self, ready: set[int]) -> bool:
        """Whether a message of the parent is there."""
        return self._line.fileno() in ready

    def send(self, message: dict[str, Any]) -> None:
        """Answer the parent."""
        self._line.sendall(json.dumps(message).encode() + b"\n")


def _end(leftover: int | None) -> NoReturn:
    if leftover is not None:
        _kill(leftover)
    os._exit(0)


def _kill(pid: int) -> None:
    for send in (os.killpg, os.kill):  # the group exists as soon as the child has made its session
        with contextlib.suppress(ProcessLookupError, PermissionError):
            send(pid, signal.SIGKILL)


@dataclasses.dataclass(frozen=True)
class Worker:
    """A child that says on `ready` that it is confined and takes the number of a model set from `go`.

    It runs one program and ends. It may use `seconds` of processor time.
    """

    pid: int
    seconds: float
    ready: int
    go: int


class Server:
    """Keeps one confined child waiting; gives it the next program and reports how it ended."""

    def __init__(self, control: Control, setup: dict[str, Any], uid: int) -> None:
        from selfdev.sandbox import child, inputs, layout

        self._child = child
        self._control = control
        self._models: dict[str, Models] = {n: inputs.map_models(v) for n, v in setup["sets"].items()}
        self._status = layout.Status(control.handles[0])
        results = zip(setup["results"].items(), control.handles[1:], strict=True)
        self._targets = {name: _target(handle, seed) for (name, seed), handle in results}
        self._alone = os.getpid() == 1
        # A GPU driver reserves far more address space than there is memory.
        bounded = kernel.LINUX and not setup["nodes"]
        self._memory = setup["memory"] + _address_space() if bounded else None
        self._numbers = {name: number for number, name in enumerate(self._models)}
        self._to = layers.Confinement(
            frozenset(),
            self._memory,
            setup["seconds"],
            uid,
            setup["threads"],
            setup["device"],
            tuple(setup["nodes"]),
            setup["memory"] if kernel.LINUX and setup["nodes"] else None,
            note=self._status.forbid,
        )
        self._next: Worker | None = None
        if kernel.LINUX and len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208
            raise RuntimeError("the server has more than one thread; a fork of it could hang")
        self._awake = _wake_on_child()
        control.wake_by(self._awake)
        child.quiet_diagnostics()
        child.forget_imports()

    def find_layers(self, wanted: frozenset[str], entered: set[str]) -> None:
        """Try the child's layers once in a child; tell the parent which are active from now on."""
        to = dataclasses.replace(self._to, layers=wanted, address_space=None, heap=None, note=lambda _: None)
        inherit, report = os.pipe()
        pid = os.fork()
        if pid == 0:
            found = layers.trial(to)
            os.write(report, json.dumps(sorted(found)).encode())
            os._exit(0)
        os.close(report)
        found = json.loads(os.read(inherit, 65_536) or b"[]")
        os.close(inherit)
        os.waitpid(pid, 0)
        self._to = dataclasses.replace(self._to, layers=frozenset(found))
        if "seccomp" in found:
            layers.filter_of(self._to)
        self._next = self._fork(self._to.seconds)
        self._control.send({"active": sorted(entered | set(found))})

    def serve(self) -> NoReturn:
        """One program after another."""
        while True:
            if self._control.readable(self._control.wait()):
                message = self._control.receive()
                if "run" in message:  # a "kill" that crossed with the end of its program is stale
                    self._run(message["run"], message["seconds"])
            else:
                self._drain()

    def _run(self, on: str, seconds: float) -> None:
        worker = self._take(seconds)
        if os.read(worker.ready, 1) != b"1":
            self._await(worker.pid)
            self._control.send({"unconfined": True})
        else:
            self._control.send({"started": True})
            os.write(worker.go, bytes([self._numbers[on]]))
            self._control.send({"exit": self._await(worker.pid)})
        os.close(worker.ready)
        os.close(worker.go)
        self._next = self._fork(self._to.seconds)

    def _take(self, seconds: float) -> Worker:
        """The waiting worker, or a new one if that is dead or has too little processor time."""
        worker, self._next = self._next, None
        if worker is not None:
            if os.waitpid(worker.pid, os.WNOHANG)[0] == 0 and seconds <= worker.seconds:
                return worker
            _kill(worker.pid)
            self._sweep(worker.pid)
            os.close(worker.ready)
            os.close(worker.go)
        return self._fork(seconds)

    def _fork(self, seconds: float) -> Worker:
        """A confined process that waits for a program."""
        to = dataclasses.replace(self._to, seconds=seconds)
        ready, tell = os.pipe()
        wait, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            models, targets = list(self._models.values()), list(self._targets.values())
            self._child.main(models, targets, self._status, to, wait, tell)
        os.close(tell)
        os.close(wait)
        return Worker(pid, seconds, ready, go)

    def _await(self, pid: int) -> int:
        """The child's exit code, negative for a signal; no process of it is left afterwards."""
        done, state = 0, 0
        while done == 0:
            ready = self._control.wait(pid)
            if self._control.readable(ready) and "kill" in self._control.receive(pid):
                _kill(pid)
            self._drain()
            done, state = os.waitpid(pid, os.WNOHANG)
        self._sweep(pid)
        return os.waitstatus_to_exitcode(state)

    def _sweep(self, pid: int) -> None:
        """Kill what the child may have left behind: everything, where we are alone in our namespace."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._alone:
                os.kill(-1, signal.SIGKILL)
            else:
                os.killpg(pid, signal.SIGKILL)
        deadline = time.monotonic() + 1.0
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < deadline:
                os.waitpid(-1, os.WNOHANG)

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._awake, 4096):
                pass


def _wake_on_child() -> int:
    """A descriptor that becomes readable when a child ends."""
    inherit, wake = os.pipe()
    os.set_blocking(inherit, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    return inherit


def _target(handle: int, seed: list[Any]) -> Target:
    from selfdev.sandbox import layout

    slots = [layout.Place(n, d, tuple(s), o, b) for n, d, s, o, b in seed]
    area = mmap.mmap(handle, layout.size(slots))
    return [(place, layout.tensor(area, place.dtype, place.shape, place.offset)) for place in slots]


def _address_space() -> int:
    """Bytes of address space in use now: libraries, models and the result area."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[0]) * mmap.PAGESIZE
