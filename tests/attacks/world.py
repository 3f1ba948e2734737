"""What hostile programs aim at: a file, a folder, listeners, a process, a secret variable; all the test's."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox_models import program

from selfdev.records import Program

SECRET = "the secret of the canary"
HOLE = "return {name: torch.full_like(seed[name], 666.0) for name in seed}"


@dataclass(frozen=True)
class World:
    """The targets; `check` says what is no longer as it was."""

    folder: Path
    listeners: tuple[socket.socket, ...]
    victim: subprocess.Popen[bytes]

    @property
    def canary(self) -> Path:
        return self.folder / "canary.txt"

    def fill(self, body: str) -> Program:
        """The attack as a program that aims at this world and returns 666 if it gets that far."""
        tcp, udp, unix, abstract = self.listeners
        words = {
            "@CANARY@": str(self.canary),
            "@FOLDER@": str(self.folder),
            "@TCP@": str(tcp.getsockname()[1]),
            "@UDP@": str(udp.getsockname()[1]),
            "@UNIX@": str(unix.getsockname()),
            "@ABSTRACT@": abstract.getsockname()[1:].decode(),
            "@VICTIM@": str(self.victim.pid),
            "@PARENT@": str(os.getpid()),
        }
        for word, value in words.items():
            body = body.replace(word, value)
        return program(body.strip("\n") + "\n" + HOLE)

    def harm(self) -> list[str]:
        """What an attack changed or reached; empty when all is as it was."""
        found = []
        if self.canary.read_text() != SECRET or self.canary.stat().st_mode & 0o777 != 0o644:
            found.append("the canary was changed")
        if self.canary.stat().st_mtime < 1000:
            found.append("the canary's times were changed")
        if sorted(p.name for p in self.folder.iterdir()) != ["canary.txt", "unix"]:
            found.append("the folder was changed")
        if select.select(self.listeners, [], [], 0)[0]:
            found.append("a listener was reached")
        if self.victim.poll() is not None or _state(self.victim.pid) in "tT":
            found.append("the victim was harmed")
        if os.getpriority(os.PRIO_PROCESS, self.victim.pid) != os.getpriority(os.PRIO_PROCESS, 0):
            found.append("the victim's priority was changed")
        if Path("/dev/shm/selfdev-attack").exists():
            found.append("a file lies in /dev/shm")
        return found


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Set the targets up and take them down."""
    folder.chmod(0o755)
    (folder / "canary.txt").write_text(SECRET)
    (folder / "canary.txt").chmod(0o644)
    os.environ["SELFDEV_SECRET"] = SECRET
    listeners = _listeners(folder)
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        yield World(folder, listeners, victim)
    finally:
        os.environ.pop("SELFDEV_SECRET", None)
        victim.kill()
        victim.wait()
        for listener in listeners:
            listener.close()


def _listeners(folder: Path) -> tuple[socket.socket, ...]:
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(folder / "unix"))
    (folder / "unix").chmod(0o777)
    unix.listen()
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0selfdev{folder}")
    abstract.listen()
    return tcp, udp, unix, abstract
