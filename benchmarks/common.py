"""What the benchmarks share: rivals in turns, medians, a command's time and peak memory, the machine."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

Rival = Callable[[], Any]
GIB = 2**30
EVERY = 0.1  # seconds between two looks at the memory of a command


def take_turns(rivals: Mapping[str, Rival], rounds: int, warm: bool = True) -> dict[str, list[float]]:
    """Seconds of each rival in each round, with `warm` after one call of each that does not count."""
    names = list(rivals)
    for name in names if warm else ():
        rivals[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            begin = time.perf_counter()
            rivals[name]()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def medians(runs: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each rival's values."""
    return {name: statistics.median(values) for name, values in runs.items()}


def machine(*packages: str) -> dict[str, Any]:
    """What the figures depend on; `load` is the number of processes that ran or waited at the start."""
    return {
        "cores": os.cpu_count(),
        "gpus": len(list(Path("/dev").glob("nvidia[0-9]*"))),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", *packages)},
    }


def save(file: Path, results: Mapping[str, Any]) -> None:
    """Write results as JSON and say where."""
    file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"written: {file}")


@dataclass(frozen=True, slots=True)
class Ran:
    """Wall seconds of a command and the most memory that it and its processes had at once, bytes: all pages,
    and those beyond files mapped into memory. A page of n processes counts as 1/n in each."""

    seconds: float
    memory: int
    beyond_files: int
    output: str


def watched(words: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Ran:
    """Run a command to its end; one that fails raises RuntimeError with its last words."""
    done = threading.Event()
    peaks = [0, 0]
    begin = time.perf_counter()
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | (environment or {})
    ) as command:
        watcher = threading.Thread(target=_watch, args=(command.pid, done, peaks))
        watcher.start()
        output, errors = command.communicate()
        seconds = time.perf_counter() - begin
        done.set()
        watcher.join()
    if command.returncode:
        raise RuntimeError(f"{words[0]} ended with {command.returncode}: {errors[-1500:]}")
    return Ran(seconds, peaks[0], peaks[1], output)


def _watch(root: int, done: threading.Event, peaks: list[int]) -> None:
    while not done.wait(EVERY):
        now = [_memory(pid) for pid in _processes(root)]
        for place in (0, 1):
            peaks[place] = max(peaks[place], sum(one[place] for one in now))


def _processes(root: int) -> list[int]:
    """A process and all that came of it."""
    found = [root]
    for pid in found:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def _memory(pid: int) -> tuple[int, int]:
    """Bytes of a process, in all and beyond mapped files, its share of what several hold."""
    kib = {"Pss": 0, "Pss_Anon": 0, "Pss_Shmem": 0}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in kib:
                kib[name] = int(value.split()[0])
    return kib["Pss"] * 1024, (kib["Pss_Anon"] + kib["Pss_Shmem"]) * 1024
