"""The gate: what models really write gets through, what breaks the contract is INVALID with a reason."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from selfdev.factory.factory import prompt
from selfdev.gate import gate
from selfdev.library import BUILTIN

PROMPT = prompt()
PLAIN = "def merge_models(models, device):\n    return dict(models['seed'])"

CHATTY = """\
Sure! Here is an improved strategy that weighs each expert by similarity.

```python
import copy
import re
from typing import Dict
import numpy as np
import torch
import torch.nn.functional as F

ALPHA: float = 0.3
LAYER = re.compile(r"layers\\.(\\d+)\\.")
LIMIT = math.sqrt(2.0)


class Weigher:
    \"\"\"Keeps the weight; not __class__ magic.\"\"\"

    def __init__(self, alpha: float = ALPHA) -> None:
        self._alpha = alpha

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._alpha * x


def helper(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return F.cosine_similarity(a.flatten(), b.flatten(), dim=0)


@torch.no_grad()
def merge_models(models: Dict[str, dict], device: torch.device = "cpu") -> Dict[str, torch.Tensor]:
    weigh = Weigher()
    merged = copy.deepcopy(models["seed"])
    for name in merged:
        merged[name] += weigh(helper(merged[name], models["seed"][name]))
    return merged


if __name__ == "__main__":
    print("not run")
```

This keeps the seed's norm. Let me know if you want another one!
"""

ACCEPTED = {
    "bare": PLAIN,
    "the prompt's example": PROMPT,
    "fence with prose": CHATTY,
    "fence without language": f"Here:\n```\n{PLAIN}\n```\nDone.",
    "tilde fence": f"~~~python\n{PLAIN}\n~~~",
    "fence never closed": f"```python\n{PLAIN}\n",
    "windows line ends": PLAIN.replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + PLAIN,
    "indented fence": "1. Do this:\n\n   ```python\n"
    + PLAIN.replace("def", "   def").replace("\n ", "\n    ")
    + "\n   ```",
    "two blocks": f"```python\nx = 1\n```\nand\n```python\n{PLAIN}\n```",
    "draft, then final": f"```\ndef merge_models(models, device):\n    return (\n```\n```\n{PLAIN}\n```",
    "prose around bare code": f"Here is the program.\n\nimport math\n\n{PLAIN}\n\nIt returns the seed.",
    "other argument names": PLAIN.replace("models", "weights").replace("merge_weights", "merge_models"),
    "default and options": PLAIN.replace("device)", "device='cpu', alpha=0.5, *, beta=1)"),
    "star arguments": "def merge_models(*args, **kwargs):\n    return args[0]['seed']",
    "getattr in plain sight": PLAIN + "\n\ndef f(x):\n    return getattr(x, 'shape')",
    "compiled pattern": "import re\n\n" + PLAIN.replace("dict(", "re.compile('x') and dict("),
    "decorator without call": "@torch.no_grad\n" + PLAIN,
    "named tuple": "from collections import namedtuple\nPair = namedtuple('Pair', 'a b')\n" + PLAIN,
    "module class": "class Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n\n"
    + PLAIN,
    "constants from constants": "A = [0.1 * i for i in range(3)]\nB = {k: str(v) for k, v in zip('a', A)}\n"
    + PLAIN,
    "dataclass": "from dataclasses import dataclass, field\n\n@dataclass(frozen=True)\nclass Plan:\n"
    "    sum: float = 0.5\n    parts: list = field(default_factory=lambda: [0.5, 0.5])\n\n" + PLAIN,
    "decorators": "import functools\n\n@functools.lru_cache(maxsize=None)\n"
    "@torch.autocast('cpu', dtype=torch.bfloat16)\ndef f(x):\n    return x\n\n" + PLAIN,
    "class with methods": "class Tool:\n    @staticmethod\n    def f(x):\n        return x\n\n    @property\n"
    "    def max(self):\n        return max(1, 2)\n\n    @classmethod\n    @torch.no_grad()\n"
    "    def make(cls):\n        return cls()\n\n" + PLAIN,
    "enumeration": "from enum import Enum, auto, unique\n\n@unique\nclass Mode(str, Enum):\n    A = auto()\n"
    + PLAIN,
    "own error": "class Odd(ValueError):\n    def __init__(self, x):\n        super().__init__(x)\n\n"
    + PLAIN,
    "table of functions": "def f(x):\n    return x\n\nTABLE = {'a': f, 'b': lambda x: x}\n" + PLAIN,
    "lambda that sorts": "ORDER = lambda xs: sorted(xs, key=lambda x: x[1])\n" + PLAIN,
    "type of own class": "from typing import Dict, Generic, TypeVar\nT = TypeVar('T')\n"
    "class Box(Generic[T]):\n    x: T\nBoxes = Dict[str, Box]\ndef f(x: Dict[str, Box[int]] = {}): pass\n"
    + PLAIN,
    "names of builtins inside": "def f(sum, max=1):\n    len = sum + max\n    return len\n\n" + PLAIN,
    "endless": "def merge_models(models, device):\n    while True:\n        pass",
    "an error on purpose": "def merge_models(models, device):\n    raise ValueError('no idea')",
    "optional return": "def merge_models(models, device):\n    if not models:\n        return\n    return 1",
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_completions_as_models_write_them_are_accepted(name: str) -> None:
    code = gate.check(ACCEPTED[name]).code
    assert "def merge_models" in code
    assert "```" not in code
    compile(code, "program", "exec")


def test_prose_is_left_out() -> None:
    code = gate.check(CHATTY).code
    assert code.startswith("import copy")
    assert "Let me know" not in code


def test_bare_code_is_taken_as_it_is() -> None:
    assert gate.check(PROMPT).code == PROMPT
    assert gate.extract(PLAIN) == PLAIN


def returns(expression: str) -> str:
    return f"def merge_models(models, device):\n    return {expression}"


REJECTED = {
    # nothing to run
    "": "no code found",
    "I am sorry, I cannot help with that.": "no code found",
    "def merge(models, device):\n    return models": "no function .* it defines merge$",
    "X = 1": "no function",
    "class A:\n    def merge_models(self, d):\n        return 1": "no function",
    f"{PLAIN}\n\n{PLAIN}": "defined 2 times",
    # cut off
    "def merge_models(models, device):\n    x = (1,": "line 2: .* never closed .*seems to be cut off",
    "def merge_models(models, device):\n    seed = models['seed']\n": "never returns a value",
    "def merge_models(models, device):\n    while models:\n        pass": "never returns",
    "def merge_models(models, device):": "cut off",
    "def merge_models(models, device):\n    def f():\n        return 1\n": "never returns",
    # signature
    "def merge_models(models):\n    return models": "cannot be called as",
    "def merge_models(a, b, c):\n    return a": "cannot be called as",
    "def merge_models(a, b, *, c):\n    return a": "cannot be called as",
    "async def merge_models(a, b):\n    return a": "async",
    "def merge_models(a, b):\n    yield a\n    return a": "yields",
    # imports
    f"import os\n{PLAIN}": "line 1: import of os is not allowed; use torch",
    f"import torch.hub\n{PLAIN}": "torch.hub",
    f"import torch.utils.cpp_extension\n{PLAIN}": "not allowed",
    f"from torch import hub\n{PLAIN}": r"\.hub",
    f"from torch import *\n{PLAIN}": "name what you need",
    f"from . import x\n{PLAIN}": "relative",
    f"from torch.utils import data\n{PLAIN}": "not allowed",
    f"import numpy.ctypeslib\n{PLAIN}": "not allowed",
    "def merge_models(a, b):\n    import subprocess\n    return a": "line 2: import of subprocess",
    # names and attributes
    returns("open('/etc/passwd')"): "open is not allowed",
    returns("eval('1')"): "eval",
    returns("__import__('os')"): "__import__",
    returns("__builtins__"): "__builtins__",
    returns("torch.os"): r"\.os",
    returns("torch._C"): r"\._C",
    returns("torch.ops.load_library('x')"): r"\.load_library|\.ops",
    returns("torch.load('x')"): r"\.load",
    returns("torch.from_file('x')"): r"\.from_file",
    returns("torch.compile(models)"): r"\.compile",
    returns("models.tofile('x')"): r"\.tofile",
    returns("().__class__.__base__"): "double-underscore",
    returns("models._private"): "private",
    returns("getattr(models, '__class__')"): "double-underscore",
    returns("getattr(models, 'o' + 's')"): "plain string",
    returns("(g := getattr)(torch, 'os')"): "getattr may only be called",
    returns("'{0.__class__}'.format(models)"): "__class__ is not allowed",
    returns("type('X', (), {})"): "several arguments",
    "def merge_models(a, b):\n    match a:\n        case A(__class__=c):\n            return c": "double-",
    returns("('{0._' + '_class__}').format(a)"): "plain string in front",
    returns("'{0.gi_frame}'.format(a)"): "gi_frame is not allowed",
    returns("'{0[{1.gi_frame}]}'.format(a, b)"): "gi_frame is not allowed",
    returns("str.format('{}', a)"): "plain string in front",
    # effects at import
    f"{PLAIN}\nprint('hello')": "line 3: runs at import: `print\\('hello'\\)`",
    f"x = merge_models({{}}, 0)\n{PLAIN}": "called outside of a function",
    f"for i in range(3):\n    pass\n{PLAIN}": "runs at import",
    f"torch.add = 1\n{PLAIN}": "plain names",
    f"@print\n{PLAIN}": "called outside",
    "def merge_models(a, b, c=print(1)):\n    return a": "called outside",
    "def merge_models(a: print(1), b):\n    return a": "called outside",
    f"class A(print()):\n    pass\n{PLAIN}": "called outside",
    f"class A:\n    print(1)\n{PLAIN}": "runs at import",
    f"class A(metaclass=B):\n    pass\n{PLAIN}": "class keywords",
    f"class A:\n    def __init_subclass__(c):\n        pass\n{PLAIN}": "may not define __init_subclass__",
    f"class A:\n    def __class_getitem__(c, k):\n        pass\n{PLAIN}": "may not define",
    f"(y := 1)\n{PLAIN}": "runs at import",
    f"print(0x{'f' * 8_000})\n{PLAIN}": "runs at import: `print\\(0xfff",
    f"@f(0x{'f' * 8_000})\n{PLAIN}": "`f` is called outside",
    f"def f(x):\n    return x\nX = sorted([1], key=f)\n{PLAIN}": r"line 3: `sorted\(.*=f\)` could",
    f"class A:\n    __name__ = '__main__'\n{PLAIN}": "__name__ is not allowed",
    # damaged text
    "x" * 20_001: "at most 20000",
    returns("1\x00"): "null|cannot be parsed|invalid",
    returns("(" * 300): "too many nested|never closed",
    returns("-" * 9_000 + "1"): "nested too deeply|cannot be parsed|too many",
    returns("a" + "+a" * 6_000): "nested too deeply|cannot be parsed|recursion",
    returns("9" * 5_000): "digits",
}


FORMATS = (
    "'layer {}'.format(1)",
    "'{:.2f} {name!r}'.format(1.5, name=a)",
    "TEMPLATE.format(3)",
    "f'{a}'",
)


@pytest.mark.parametrize("expression", FORMATS)
def test_text_that_is_formatted_in_plain_sight_is_accepted(expression: str) -> None:
    code = f"TEMPLATE = 'model.layers.{{}}.mlp'\n\n{returns(expression)}"
    assert gate.check(code).code.strip() == code.strip()


def test_private_names_of_own_classes_are_accepted() -> None:
    own = "class Weigher:\n    def __init__(self):\n        self.__weight = 1.0\n        self._more = 2.0\n\n"
    assert gate.check(own + PLAIN).code.startswith("class Weigher")


@pytest.mark.parametrize("text", REJECTED, ids=range(len(REJECTED)))
def test_what_breaks_the_rules_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(gate.Rejected, match=REJECTED[text]) as refusal:
        gate.check(text)
    reason = str(refusal.value)
    assert len(reason) <= 300
    assert reason.isprintable()


def test_all_built_in_programs_pass() -> None:
    for path in BUILTIN.glob("[a-z]*.py"):
        gate.check(path.read_text())


def test_the_gate_runs_nothing(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    text = f"open({str(witness)!r}, 'w').close()\n{PLAIN}"
    with pytest.raises(gate.Rejected):
        gate.check(text)
    assert not witness.exists()


def test_a_bad_escape_in_the_text_is_no_warning_of_ours() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gate.check(PLAIN.replace("dict(", "'\\d' and dict("))
