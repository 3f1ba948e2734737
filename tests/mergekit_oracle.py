"""Where mergekit is installed, an oracle for tests: beside this Python, or in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

VARIABLE = "SELFDEV_MERGEKIT"  # path of a `mergekit-yaml`


def mergekit_yaml() -> Path:
    """The command mergekit-yaml; skips the test where there is none."""
    found = os.environ.get(VARIABLE) or Path(sys.executable).with_name("mergekit-yaml")
    if not Path(found).is_file():
        pytest.skip(f"mergekit is not installed; set {VARIABLE} to a mergekit-yaml (tested with 0.1.5)")
    return Path(found)


def in_mergekit(*words: str | Path) -> str:
    """What Python prints in mergekit's environment, offline; a failure shows its errors."""
    python = mergekit_yaml().with_name("python")
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    done = subprocess.run([python, *words], capture_output=True, text=True, env=settings, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
