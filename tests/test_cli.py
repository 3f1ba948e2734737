"""The command line: what it passes on, what it prints where, and its exit codes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sample_result import result as sample_run
from typer.testing import CliRunner, Result

import selfdev
from selfdev.cli.answer import to_json
from selfdev.cli.cli import STARTED, app
from selfdev.errors import SelfdevError
from selfdev.records import State

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Ended:
    """Stands for MergeResult and ScoreResult."""

    state: State
    seconds: float
    out: Path | None = None


class Recorder:
    """An API that keeps the arguments it was called with and gives back one answer."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, *args: Any, **named: Any) -> Any:
        self.calls.append((args, named))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def call(monkeypatch: pytest.MonkeyPatch, verb: str, answer: Any, *words: str) -> tuple[Result, Recorder]:
    """Give a command to a command line whose API function `verb` is a recorder."""
    recorder = Recorder(answer)
    monkeypatch.setattr(selfdev, "api", SimpleNamespace(**{verb: recorder}), raising=False)
    return CliRunner().invoke(app, list(words)), recorder


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from selfdev.cli.cli import app
try:
    app(["--help"])
except SystemExit as ended:
    heavy = {"torch", "transformers", "trl", "numpy", "pydantic", "scipy", "rich.console"} & set(sys.modules)
    sys.exit(str(heavy) if heavy else ended.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in ("run", "merge", "score", "report", "config-schema", "lab"):
        assert verb in done.stdout


def test_module_is_the_command() -> None:
    words = [sys.executable, "-m", "selfdev", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.strip()[0].isdigit()


def test_run_passes_config_folder_and_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("run", "c.yaml", "--out", "here", "--set", "a.b=1", "--set", "seed=2")
    done, api = call(monkeypatch, "run", sample_run(), *words)
    assert done.exit_code == 0
    assert api.calls == [((Path("c.yaml"), Path("here"), ["a.b=1", "seed=2"]), {})]


def test_run_json_has_the_promised_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    done, _ = call(monkeypatch, "run", sample_run(), "run", "c.yaml", "--json")
    printed = json.loads(done.stdout)
    assert {"iterations", "test", "seconds", "best_program"} <= set(printed)
    turn = {"iteration", "temperature", "written", "states", "unique", "dev_mean", "dev_median", "dev_p90"}
    assert turn | {"dev_best"} <= set(printed["iterations"][0])
    assert {"name", "kind", "n", "accuracy", "low", "high", "p_vs_best_baseline"} <= set(printed["test"][0])
    assert done.stdout.count("\n") == 1


def test_run_without_json_prints_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    done, _ = call(monkeypatch, "run", sample_run(), "run", "c.yaml")
    assert "The best discovered program beats the best tuned baseline by 4.2 points" in " ".join(
        done.stdout.split()
    )


def test_merge_passes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    words = (
        "merge ties --seed S --expert a=A --expert b=dir=B --out O --param DENSITY=0.5 --param WEIGHT=[1,2]"
    )
    words += " --timeout 3 --memory 2 --scope all --show-dtype float32 --random-seed 7"
    words += " --shard-size 5GB --json"
    done, api = call(monkeypatch, "merge", Ended(State.MERGED, 1.5, Path("O")), *words.split())
    assert json.loads(done.stdout) == {"state": "MERGED", "seconds": 1.5, "out": "O"}
    args, named = api.calls[0]
    assert args == ("ties", "S", [("a", "A"), ("b", "dir=B")])
    assert named == {
        "out": Path("O"),
        "parameters": {"DENSITY": 0.5, "WEIGHT": [1, 2]},
        "scope": "all",
        "dtype": "F32",
        "random_seed": 7,
        "shard_size": "5GB",
        "timeout": 3.0,
        "started": STARTED,
        "memory": 2.0,
        "accept_weaker": False,
    }


def test_merge_that_ends_in_a_state_exits_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("merge", "p.py", "--seed", "S", "--expert", "a=A")
    done, _ = call(monkeypatch, "merge", Ended(State.CRASHED, 0.1), *words)
    assert done.exit_code == 0
    assert "CRASHED" in done.stdout


def test_score_passes_task_split_and_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("score", "M", "--task", "gsm8k", "--split", "dev", "--limit", "7", "--json")
    done, api = call(monkeypatch, "score", Ended(State.SCORED, 1.0), *words)
    assert done.exit_code == 0
    how = {"split": "dev", "shots": None, "path": None, "grader": None, "chat": False}
    assert api.calls == [((Path("M"), "gsm8k"), {"limit": 7, **how})]


def test_transfer_passes_run_config_folder_and_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("transfer", "runs/demo", "b.yaml", "--out", "o", "--set", "task.test=9", "--json")
    done, api = call(monkeypatch, "transfer", Ended(State.SCORED, 1.0), *words)
    assert json.loads(done.stdout)["state"] == "SCORED"
    assert done.stdout.count("\n") == 1
    assert api.calls == [((Path("runs/demo"), Path("b.yaml"), Path("o"), ["task.test=9"]), {})]


def test_transfer_of_an_unfinished_run_exits_with_1(tmp_path: Path) -> None:
    config = str(CONFIGS / "lab_b.yaml")
    done = CliRunner().invoke(app, ["transfer", str(tmp_path), config])
    assert (done.exit_code, done.stdout) == (1, "")
    assert "is not a run folder" in done.stderr


def test_report_prints_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    done, _ = call(monkeypatch, "report", Path("r/report.html"), "report", "r", "--json")
    assert json.loads(done.stdout) == {"report": "r/report.html"}


def test_lab_path_prints_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {"a": {"seed": "/x/seed", "experts": {"sum": "/x/sum"}}}
    done, _ = call(monkeypatch, "lab_paths", paths, "lab", "path", "--json")
    assert json.loads(done.stdout) == paths
    done, _ = call(monkeypatch, "lab_paths", paths, "lab", "path")
    assert "/x/sum" in done.stdout


def test_lab_build_and_check_pass_their_options(monkeypatch: pytest.MonkeyPatch) -> None:
    _, api = call(
        monkeypatch, "lab_build", Path("o"), "lab", "build", "--family", "b", "--seed", "3", "--out", "o"
    )
    assert api.calls == [(("b", 3, Path("o")), {})]
    _, api = call(
        monkeypatch, "lab_check", Ended(State.SCORED, 1.0), "lab", "check", "--family", "b", "--json"
    )
    assert api.calls == [(("b",), {})]


def test_config_schema_is_json() -> None:
    done = CliRunner().invoke(app, ["config-schema"])
    assert json.loads(done.stdout)["title"] == "Config"
    assert json.loads(CliRunner().invoke(app, ["config-schema", "--json"]).stdout)["title"] == "Config"


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_an_error_is_one_sentence_on_stderr(monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]) -> None:
    sentence = "model [x] is missing: " + "a long reason " * 20
    done, _ = call(monkeypatch, "run", SelfdevError(sentence), "run", "c.yaml", *more)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"selfdev: {sentence}\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device", "runs/x"), "No space left on device: runs/x."),
        (RuntimeError("two\nlines"), "unexpected RuntimeError: two lines. Please report it"),
    ],
)
def test_no_traceback_for_what_was_not_foreseen(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    done, _ = call(monkeypatch, "run", error, "run", "c.yaml")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"selfdev: {words}")
    assert done.stderr.count("\n") == 1


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFDEV_TRACEBACK", "1")
    done, _ = call(monkeypatch, "run", RuntimeError("here"), "run", "c.yaml")
    assert isinstance(done.exception, RuntimeError)


def test_interrupted_run_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    done, _ = call(monkeypatch, "run", KeyboardInterrupt(), "run", "c.yaml", "--json")
    assert (done.exit_code, done.stdout) == (130, "")
    assert "same command again to go on" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "unknown",
        "run",
        "run c.yaml --nonsense",
        "merge ties --seed S",
        "merge ties --seed S --expert name",
        "merge ties --seed S --expert a=A --param X",
        "merge ties --seed S --expert a=A --param X=word",
        f"merge ties --seed S --expert a=A --param X={'9' * 5_000}",
        "score M --limit=-1",
        "lab build",
    ],
)
def test_wrong_usage_exits_with_2(words: str) -> None:
    done = CliRunner().invoke(app, words.split())
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def test_stdout_holds_the_result_alone() -> None:
    code = """
import os, sys, types, selfdev
def paths():
    print("printed"); os.write(1, b"written\\n"); os.system("echo child")
    return {"a": "b"}
selfdev.api = types.SimpleNamespace(lab_paths=paths)
from selfdev.cli.cli import app
app(["lab", "path", "--json"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == '{"a": "b"}\n'
    assert sorted(done.stderr.split()) == ["child", "printed", "written"]


def test_json_is_strict_about_numbers() -> None:
    value = {"loss": math.nan, "far": math.inf, "state": State.MERGED, 3: (Path("x"), True, None, 1.5)}
    assert json.loads(to_json(value)) == {
        "loss": None,
        "far": None,
        "state": "MERGED",
        "3": ["x", True, None, 1.5],
    }
