"""A program's parameters: its top-level UPPER_CASE constants, read and replaced in the text."""

from __future__ import annotations

import ast
import math
import re
import reprlib
from collections.abc import Mapping

from selfdev.errors import SelfdevError

DEEPEST = 20  # lists in lists of a value; Python itself reads 200 parentheses
DIGITS = 4000  # of a whole number; Python itself writes 4,300
_UPPER_CASE = re.compile(r"[A-Z][A-Z0-9_]*")


def parameters(code: str) -> dict[str, object]:
    """Name -> value of every top-level UPPER_CASE constant that is a plain literal."""
    return {name: ast.literal_eval(value) for name, value in _constants(code).items()}


def set_parameters(code: str, values: Mapping[str, object]) -> str:
    """The program with these constants replaced, everything else character for character.

    Raises SelfdevError for a name the program does not have or a value that is no finite plain literal.
    """
    constants = _constants(code)
    for name, value in values.items():
        if name not in constants:
            there = ", ".join(constants) or "none"
            raise SelfdevError(f"{name} is no parameter of this program; it has {there}: use one of these")
        if not _plain(value):
            raise SelfdevError(
                f"{name}={reprlib.repr(value)} is no JSON value with finite numbers, nested at most {DEEPEST}"
                " times; give such a value"
            )
    raw = code.encode()
    starts = [0]
    for line in raw.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    replaced = [(node, values[name]) for name, node in constants.items() if name in values]
    for node, value in sorted(replaced, key=_place, reverse=True):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        raw = raw[:begin] + repr(value).encode() + raw[end:]
    return raw.decode()


def _place(replaced: tuple[ast.expr, object]) -> tuple[int, int]:
    return replaced[0].lineno, replaced[0].col_offset


def _constants(code: str) -> dict[str, ast.expr]:
    found: dict[str, ast.expr] = {}
    for node in ast.parse(code).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                found[name] = value
    return {n: v for n, v in found.items() if _UPPER_CASE.fullmatch(n) and _is_literal(v)}


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    return True


def _plain(value: object, depth: int = 0) -> bool:
    if depth > DEEPEST:
        return False
    match value:
        case None | bool() | str():
            return True
        case int():
            return bool(abs(value) < 10**DIGITS)
        case float():
            return math.isfinite(value)
        case list() | tuple():
            return all(_plain(item, depth + 1) for item in value)
        case dict():
            return all(isinstance(key, str) and _plain(item, depth + 1) for key, item in value.items())
    return False
