"""The sandbox as its callers see it: models in, programs one at a time, outcomes and merged weights out."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from selfdev.errors import SelfdevError
from selfdev.records import Outcome, Program, State
from selfdev.sandbox import layers, layout, verdict
from selfdev.sandbox.process import Ending, ServerProcess
from selfdev.sandbox.result import Result, Run

if TYPE_CHECKING:
    from selfdev.checkpoints import ModelView


PAYS = 6.0  # seconds of work left from which another sandbox, itself two seconds of work, pays
AGAIN = 3  # times a program is run again after its server was lost


@dataclass(frozen=True)
class Limits:
    """Wall seconds per program, memory it may allocate beyond the mapped models, and its threads."""

    seconds: float = 10.0
    memory_gb: float = 4.0
    threads: int = 1


class Sandbox:
    """Runs programs on fixed sets of models, one at a time; use it as a context manager.

    The first view of each set is the seed, whose names, shapes and dtypes the result must have. Raises
    SelfdevError when files or network cannot be confined here and `accept_weaker` is not set. One thread
    at a time may use it; several sandboxes may live in one process. `nodes` are device files that programs
    may open, by default those of `device`; `server` is a process that was started ahead, with them.
    """

    def __init__(
        self,
        model_sets: Mapping[str, Sequence[ModelView]],
        limits: Limits | None = None,
        *,
        accept_weaker: bool = False,
        device: str = "cpu",
        nodes: Sequence[str] | None = None,
        use_layers: Sequence[str] = layers.ALL,
        server: ServerProcess | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.layers: frozenset[str] = frozenset()  # those in force, known once the server is up
        self._sets = {name: tuple(views) for name, views in model_sets.items()}
        self._accept_weaker = accept_weaker
        self._device, self._nodes, self._use_layers = device, nodes, tuple(use_layers)
        self._status_handle = layout.shared_memory(layout.STATUS_BYTES)
        self._status = layout.Status(self._status_handle)
        self._results = {name: Result(views) for name, views in self._sets.items()}
        self._server = server
        self._abandoned = False
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def pays(self) -> float:
        """Seconds of work left from which another sandbox pays."""
        return PAYS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the server and every process of it."""
        self._stop()
        for result in self._results.values():
            result.close()
        if self._status_handle >= 0:
            os.close(self._status_handle)
            self._status_handle = -1

    def run(
        self, program: Program, seed: int, on: str = "models", timeout: float | None = None,
        named: bool = True,
    ) -> Run:  # fmt: skip
        """Run a program on one set of models; whatever it does ends in a state, never in an exception.

        Without `named` the outcome has neither the hash of the weights nor the model they are a copy of.
        """
        begin = time.monotonic_ns()
        seconds = self.limits.seconds if timeout is None else timeout
        if len(program.code.encode("utf-8", "surrogatepass")) > layout.MAX_CODE_BYTES:
            return Run(
                Outcome(State.INVALID, f"the program is longer than {layout.MAX_CODE_BYTES} bytes"), None
            )
        result = self._results[on]
        for _ in range(1 + AGAIN):
            result.clear()
            self._status.put_job(program.code, seed)
            try:
                ending = self._ask(on, seconds)
            except BaseException:
                self._stop()  # an interrupt in the middle leaves the line out of step
                raise
            if ending.exit is not None or ending.stopped:
                break  # else the server was lost, which is the program's fault only if it is each time
        report = self._status.report()
        wall = (time.monotonic_ns() - begin) / 1e9
        state, reason = verdict.decide(ending.exit, ending.stopped, ending.output, report, seconds)
        entered = (report.entered - begin) / 1e9 if report.entered > begin else None
        tail = verdict.tail(ending.output)
        if state is not State.MERGED:
            return Run(Outcome(state, reason, wall, tail), None, entered)
        return result.checked(wall, tail, entered, named)

    def forget(self, on: str) -> None:
        """Give back the memory of the last result on a set; its tensors must not be used any more."""
        self._results[on].give_back()

    def abandon(self) -> None:
        """From another thread: the run in hand, and any later one, ends in SelfdevError."""
        self._abandoned = True
        if self._server is not None:
            self._server.kill()

    def _ask(self, on: str, seconds: float) -> Ending:
        server = self._server or self._start()
        ending = server.run(on, seconds)
        if ending.exit is None:
            self._stop()
        return ending

    def _start(self) -> ServerProcess:
        if self._abandoned:
            raise SelfdevError("the sandbox was given up; run the program in a new one")
        server = self._server or ServerProcess(self._device, self._nodes, self._use_layers)
        self._server = server
        setup = {
            "memory": int(self.limits.memory_gb * 2**30),
            "threads": self.limits.threads,
            "seconds": self.limits.seconds,
            "sets": {name: [_describe(view) for view in views] for name, views in self._sets.items()},
            "results": {name: result.describe() for name, result in self._results.items()},
        }
        self.layers = server.start(setup, [self._status_handle, *(r.handle for r in self._results.values())])
        lacking = layers.missing(self.layers)
        if lacking and not self._accept_weaker:
            raise SelfdevError(layers.refusal(lacking, self.layers))
        return server

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None


def _describe(view: ModelView) -> dict[str, Any]:
    assert not any(s.change for s in view.slots), "what is not stored as shown needs `lay_out` first"
    slots = [[s.name, s.dtype, list(s.shape), str(s.file), s.offset, s.nbytes] for s in view.slots]
    return {"name": view.name, "dtype": view.dtype, "slots": slots}
