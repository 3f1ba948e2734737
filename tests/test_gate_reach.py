"""No attribute that the gate lets through leads from an allowed module to one that reaches outside."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# What the walk may meet: these hold no way out by names that pass the gate.
HARMLESS = {"contextlib", "keyword", "textwrap"}
# Modules whose functions must not be met, wherever they are bound.
OUTSIDE = {
    *("os", "posix", "io", "_io", "sys", "subprocess", "socket", "shutil", "tempfile", "pickle", "ctypes"),
    *(
        "multiprocessing",
        "logging",
        "urllib",
        "zipfile",
        "codecs",
        "runpy",
        "pathlib",
        "gc",
        "mmap",
        "marshal",
    ),
}
WALK = """
import builtins, importlib, json, sys, types, warnings
warnings.simplefilter("ignore")
from selfdev.gate import rules
from selfdev.sandbox import inputs

inputs.exercise()  # what a program finds already imported
start = sorted(rules.MODULES | rules.SUBMODULES)
waiting = [importlib.import_module(name) for name in start]
passes = lambda name: not (name in rules.ATTRIBUTES or name == "compile" or name.startswith("_"))
forbidden = {id(getattr(builtins, name)) for name in rules.NAMES if hasattr(builtins, name)}
modules, functions, seen = set(), set(), set()
while waiting:
    module = waiting.pop()
    if id(module) in seen:
        continue
    seen.add(id(module))
    for name in filter(passes, dir(module)):
        try:
            value = getattr(module, name)
        except Exception:
            continue
        if isinstance(value, types.ModuleType):
            modules.add(value.__name__.split(".")[0])
            waiting.append(value)
        elif id(value) in forbidden:
            functions.add(f"forbidden: {module.__name__}.{name}")
        elif callable(value) and isinstance(getattr(value, "__module__", None), str):
            functions.add(f"{value.__module__.split('.')[0]}: {module.__name__}.{name}")
print(json.dumps([sorted(modules - rules.MODULES), sorted(functions)]))
"""


@pytest.fixture(scope="module")
def reached() -> tuple[list[str], list[str]]:
    """Foreign modules, and functions as `home: where it is bound`."""
    done = subprocess.run([sys.executable, "-c", WALK], capture_output=True, text=True, check=True)
    modules, functions = json.loads(done.stdout)
    return modules, functions


def test_no_foreign_module_is_reached(reached: tuple[list[str], list[str]]) -> None:
    assert set(reached[0]) <= HARMLESS


def test_no_function_that_reaches_outside_is_reached(reached: tuple[list[str], list[str]]) -> None:
    assert len(reached[1]) > 1000  # the walk went somewhere
    assert [f for f in reached[1] if f.split(":")[0] in OUTSIDE or f.startswith("forbidden: ")] == []
