"""The server process as its parent sees it: started clean, asked over a line, killed at the limits."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from selfdev.errors import SelfdevError
from selfdev.sandbox import layers, verdict
from selfdev.workers.heap import LARGE_PAGES, TUNABLES

GRACE = 1.0  # seconds the server gets to kill a child before it is killed itself
START_SECONDS = 300.0  # two on an idle machine, a minute has been seen on a crowded one
MAX_OUTPUT = 256_000  # bytes of stdout and stderr together
TAIL = 2_000  # of which this many are kept
# A program sees these and no other environment variables; they were given to the server when it started.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # until a program may have more
    "OMP_WAIT_POLICY": "passive",  # threads that wait would spin, and take the work's own time on busy cores
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",  # what was printed before a crash is not lost
    "PYTHONDONTWRITEBYTECODE": "1",
    "LC_ALL": "C.UTF-8",
    TUNABLES: LARGE_PAGES,  # fewer page faults, of which each new process has many
    "CUDA_VISIBLE_DEVICES": "",  # torch must not find a GPU: its driver cannot be forked
}


@dataclass(frozen=True)
class Ending:
    """What is known of a child's end: exit code (negative: signal; None: the server was lost)."""

    exit: int | None
    stopped: str  # "", "time" or "output": why we killed it
    output: bytes


def _gpu_environment() -> dict[str, str]:
    """Which GPUs there are to see, and no cache of compiled kernels in the home folder."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    shown = {key: value for key, value in ENVIRONMENT.items() if key != "CUDA_VISIBLE_DEVICES"}
    shown |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return shown | {"CUDA_CACHE_DISABLE": "1"}


class ServerProcess:
    """The server process, its control line and its output pipe; it gets warm as soon as it exists.

    `nodes` are device files that programs may open, by default those of `device`; `wanted` the layers.
    """

    def __init__(
        self, device: str = "cpu", nodes: Sequence[str] | None = None, wanted: Sequence[str] = layers.ALL
    ) -> None:
        self._line, theirs = socket.socketpair()
        self._output, out = os.pipe()
        os.set_blocking(self._output, False)
        code = layers.BOOT + "from selfdev.sandbox import server; server.main(int(sys.argv[2]))"
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-c", code, layers.import_path(), str(theirs.fileno())],
            env=ENVIRONMENT if device == "cpu" else _gpu_environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            cwd="/",
        )
        os.close(out)
        theirs.close()
        self._pending = b""
        self._poll = select.poll()
        self._poll.register(self._line, select.POLLIN)
        self._poll.register(self._output, select.POLLIN)
        self.nodes = layers.device_nodes(device) if nodes is None else tuple(nodes)
        first = {"parent": os.getpid(), "layers": list(wanted), "nodes": self.nodes, "device": device}
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._send(first)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def start(self, setup: dict[str, Any], handles: Sequence[int]) -> frozenset[str]:
        """Send the setup, whose places of shared memory are those in `handles`, and wait; the layers in
        force."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._line, [b" "], handles)
            self._send(setup)
        output = bytearray()
        message = self._answer(time.monotonic() + START_SECONDS, output)
        if message is None:
            last = verdict.tail(bytes(output)).strip().splitlines()[-1:] or ["no message"]
            raise SelfdevError(
                f"the sandbox server did not start: {last[0][:200]}; try it again or report this"
            )
        return frozenset(message["active"])

    def run(self, on: str, seconds: float) -> Ending:
        """Have one program run and wait for its end, killing it at the limits."""
        output = bytearray()
        message = None
        stopped = ""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._send({"run": on, "seconds": seconds})
            # A worker that waits is there at once; one for a GPU may still be making its context.
            begun = self._answer(time.monotonic() + START_SECONDS, output)
            if begun is None:
                return Ending(None, "", bytes(output))
            if "unconfined" in begun:
                raise SelfdevError(
                    "a protection that this machine has could not be put around a program (not run): "
                    f"{verdict.tail(bytes(output))[-200:].strip() or 'no reason given'}; try again"
                )
            message = self._answer(time.monotonic() + seconds, output)
            if message is None:
                stopped = "output" if len(output) > MAX_OUTPUT else "time"
                self._send({"kill": True})
                message = self._answer(time.monotonic() + GRACE, output, bounded=False)
        self._drain(output)
        return Ending(None if message is None else message["exit"], stopped, bytes(output))

    def _send(self, message: dict[str, Any]) -> None:
        self._line.sendall(json.dumps(message, default=str).encode() + b"\n")

    def _answer(self, deadline: float, output: bytearray, bounded: bool = True) -> dict[str, Any] | None:
        """The server's next message; None at the deadline, at its end, or after too much output."""
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or (bounded and len(output) > MAX_OUTPUT):
                return None
            ready = {handle for handle, _ in self._poll.poll(left * 1000 + 1)}
            if self._output in ready and not self._drain(output):
                self._poll.unregister(self._output)
            if self._line.fileno() in ready:
                data = self._line.recv(1 << 16)
                if not data:
                    return None
                self._pending += data
        line, self._pending = self._pending.split(b"\n", 1)
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    def _drain(self, output: bytearray) -> bool:
        """Read what the child printed, keeping the end of it; False when nobody can print any more."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                data = os.read(self._output, 1 << 16)
                if not data:
                    return False
                output += data
                if len(output) > 4 * MAX_OUTPUT:
                    del output[: len(output) - 2 * MAX_OUTPUT]
        return True

    def kill(self) -> None:
        """Kill the server alone: whoever waits for its answer learns that it is lost."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Kill the server; its children die with it. A second time does nothing."""
        if self._line.fileno() < 0:
            return
        self._line.close()
        self.kill()
        self._process.wait()
        os.close(self._output)
