"""The environment of the benchmarks' peers: made once, and again when its versions change."""

from __future__ import annotations

import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peers
import pytest

Words = Sequence[str | Path]


@pytest.fixture
def installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Words]:
    """What was installed, in an environment below `tmp_path`; nothing is."""
    asked: list[Words] = []

    def run(words: Words, check: bool) -> None:
        assert check
        asked.append(words)

    def create(folder: Path, **_: Any) -> None:
        folder.mkdir()

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(venv, "create", create)
    monkeypatch.setattr(peers, "PEERS", tmp_path / "peers")
    monkeypatch.setattr(peers, "CONSTRAINTS", tmp_path / "constraints.txt")
    peers.CONSTRAINTS.write_text("mergekit==0.1.5\n")
    return asked


def test_peers_are_installed_once_with_our_versions(installs: list[Words]) -> None:
    assert peers.commands() == peers.commands() == peers.PEERS / "bin"
    (words,) = installs
    assert words[0] == peers.PEERS / "bin" / "python"
    assert words[words.index("-c") + 1] == str(peers.CONSTRAINTS)
    assert {"mergekit", "lm_eval[hf]"} < set(words)


def test_other_versions_make_the_environment_anew(installs: list[Words]) -> None:
    peers.commands()
    (peers.PEERS / "left over").touch()
    peers.CONSTRAINTS.write_text("mergekit==0.1.6\n")
    peers.commands()
    assert len(installs) == 2
    assert not (peers.PEERS / "left over").exists()


def test_an_installation_that_failed_is_begun_anew(
    installs: list[Words], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(words: Words, **_: bool) -> None:
        raise subprocess.CalledProcessError(1, list(map(str, words)))

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", fail)
        with pytest.raises(subprocess.CalledProcessError):
            peers.commands()
    peers.commands()
    assert len(installs) == 1


def test_versions_are_those_of_that_environment(installs: list[Words]) -> None:
    peers.commands()
    about = peers.PEERS / "lib" / "python3.11" / "site-packages" / "mergekit-0.0.7.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mergekit\nVersion: 0.0.7\n")
    assert peers.version("mergekit") == {"mergekit": "0.0.7"}
    assert len(installs) == 1
