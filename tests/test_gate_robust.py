"""Whatever the text: the gate answers fast, and with nothing but a program or a refusal."""

from __future__ import annotations

import contextlib
import json
import random
import string
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selfdev.factory.factory import prompt
from selfdev.gate import gate

PROMPT = prompt()
PLAIN = "def merge_models(models, device):\n    return dict(models['seed'])"


def test_the_gate_is_fast() -> None:
    best = min(_seconds_to_check(PROMPT) for _ in range(30))
    assert best < 0.005


def _seconds_to_check(text: str) -> float:
    begin = time.perf_counter()
    gate.check(text)
    return time.perf_counter() - begin


SLOW = {
    "one text formatted often": "T = '" + "{0.a}" * 2_000 + "'\n" + "T.format\n" * 1_000,
    "many texts formatted often": "T = ''\n" * 1_400 + "T.format\n" * 900,
    "many private names": "".join(f"a._b{n} = 1\n" for n in range(1_200)),
    "a long list in many calls": "F = lambda: 1\nX = [F, "
    + "int(" * 150
    + "["
    + "1," * 9_000
    + "]"
    + ")" * 150
    + "]\n",
}


@pytest.mark.parametrize("name", SLOW)
def test_no_text_takes_a_second(name: str) -> None:
    text = f"{SLOW[name]}\n{PLAIN}"
    assert len(text) < 20_000
    begin = time.process_time()
    with contextlib.suppress(gate.Rejected):
        gate.check(text)
    assert time.process_time() - begin < 1


def test_random_text_never_raises_anything_else() -> None:
    rng = random.Random(0)
    for _ in range(300):
        size = rng.randrange(200)
        text = "".join(rng.choice(string.printable + "äß\u2028\x00\ud800") for _ in range(size))
        with pytest.raises(gate.Rejected):
            gate.check(text)


def test_a_short_fuzz_run_finds_nothing() -> None:
    script = Path(__file__).parent.parent / "scripts" / "fuzz_gate.py"
    command = [sys.executable, str(script), "--texts", "700", "--bytes", "300"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["accepted"] > 20
    assert found["rejected"] > 500
