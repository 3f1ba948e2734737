"""Programs that differ from one program in one thing: a statement, a constant, an expert, a group of layers.

All are made from the syntax tree and are texts like any other, for the gate, the probes and the sandbox.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from selfdev.errors import SelfdevError
from selfdev.gate.extraction import FUNCTION, quiet_parse

Kind = Literal["statement", "constant", "expert", "layers"]
MOST_WORDS = 72  # characters of a statement that are shown
MOST_GROUPS = 4  # of layers
DIGITS = (1, 2)  # significant digits that constants are rounded to
WHOLE = "whole_merge"
WITHOUT_EXPERTS = """
def merge_models(models, device):
    kept = {kept!r}
    shown = {{n: models[n] if n == "seed" or n in kept else models["seed"] for n in models}}
    return {whole}(shown, device)
"""
WITHOUT_PARAMETERS = """
def merge_models(models, device):
    import re

    merged, seed = dict({whole}(models, device)), models["seed"]
    for name in seed:
        layer = re.search(r"\\.(\\d+)\\.", name)
        if (int(layer[1]) if layer else -1) not in {kept!r}:
            merged[name] = seed[name]
    return merged
"""


@dataclass(frozen=True, slots=True)
class Variant:
    """A program with one thing changed. `what` names the change, `where` the statement it is in; `line` is
    that of the original text, 0 for a change around the whole program."""

    kind: Kind
    what: str
    code: str
    where: str = ""
    line: int = 0


def parsed(code: str) -> ast.Module:
    """The tree of a program that the gate let through."""
    return quiet_parse(code)


def unparsed(tree: ast.AST) -> str:
    """A tree as text; SelfdevError for one that Python itself cannot write."""
    try:
        return ast.unparse(tree) + "\n"
    except (ValueError, RecursionError) as error:
        raise SelfdevError(
            f"the program cannot be written again ({error}); shorten its largest number or expression"
        ) from None


def plain(code: str) -> str:
    """The program without comments and docstrings, in one layout."""
    return unparsed(_tidied(copy.deepcopy(parsed(code))))


def statements(tree: ast.Module) -> list[tuple[list[ast.stmt], int]]:
    """Every statement as the list it stands in and its place there, outer before inner; texts, `pass` and
    merge_models itself are none."""
    found = []
    for node, _, body in _bodies(tree):
        for place, statement in enumerate(body):
            itself = isinstance(node, ast.Module) and _is_function(statement)
            if not (itself or isinstance(statement, ast.Pass) or _is_text(statement)):
                found.append((body, place))
    return found


def without_statement(tree: ast.Module, number: int) -> str:
    """The program without one of its statements."""
    changed = copy.deepcopy(tree)
    body, place = statements(changed)[number]
    del body[place]
    return unparsed(_tidied(changed))


def first_line(node: ast.AST) -> str:
    """A statement's first line, cut to what fits."""
    line = unparsed(node).split("\n")[0]
    return line if len(line) <= MOST_WORDS else f"{line[: MOST_WORDS - 1]}…"


def delete_each(code: str) -> list[Variant]:
    """The program without each of its statements, in the order of the text."""
    tree = parsed(code)
    found = []
    for number, (body, place) in enumerate(statements(tree)):
        words, line = first_line(body[place]), body[place].lineno
        found.append(Variant("statement", words, without_statement(tree, number), words, line))
    return sorted(found, key=lambda variant: variant.line)


def constants(tree: ast.Module) -> list[tuple[ast.Constant, ast.stmt]]:
    """The numbers a program computes with, each with its statement; sizes and dimensions are none."""
    return [
        (constant, body[place])
        for body, place in [*statements(tree), *_itself(tree)]
        for part in ast.iter_child_nodes(body[place])
        if not isinstance(part, ast.stmt | ast.excepthandler | ast.match_case)
        for constant in _numbers(part, True)
    ]


def simpler(value: float) -> list[float]:
    """What a constant could be instead, simplest first: 0, the same with fewer digits, 1."""
    if value == 0:
        return []
    kind = type(value)
    rounded = [kind(float(f"{value:.{digits}g}")) for digits in DIGITS]
    options = [kind(0), *rounded, *([] if value == 1 else [kind(1)])]
    return [option for option in dict.fromkeys(options) if option != value]


def with_constant(tree: ast.Module, number: int, value: float) -> str:
    """The program with one of its constants replaced."""
    changed = copy.deepcopy(tree)
    constants(changed)[number][0].value = value
    return unparsed(changed)


def change_constants(code: str) -> list[Variant]:
    """The program with each of its constants made simpler, one at a time, in the order of the text."""
    tree = parsed(code)
    held = constants(tree)
    lines = [constant.lineno for constant, _ in held]
    found = []
    for number, (constant, statement) in enumerate(held):
        assert isinstance(constant.value, int | float)
        name, line = repr(constant.value), constant.lineno
        if lines.count(line) > 1:
            name += f" ({lines[: number + 1].count(line)} of {lines.count(line)})"
        for value in simpler(constant.value):
            changed = with_constant(tree, number, value)
            found.append(Variant("constant", f"{name} → {value!r}", changed, first_line(statement), line))
    return sorted(found, key=lambda variant: variant.line)


def change_experts(code: str, experts: Sequence[str]) -> list[Variant]:
    """The program with the seed's weights in place of one expert's, and of all others'."""
    found = []
    for name in experts:
        others = [other for other in experts if other != name]
        found.append(Variant("expert", f"without {name}", _around(code, WITHOUT_EXPERTS, others)))
        if others:
            found.append(Variant("expert", f"{name} alone", _around(code, WITHOUT_EXPERTS, [name])))
    return found


def change_layers(code: str, parameters: Sequence[str]) -> list[Variant]:
    """The program with one group of layers left at the seed's weights, and with all others left there."""
    groups = layer_groups(parameters)
    found = []
    for name, layers in groups.items():
        others = [layer for other, held in groups.items() if other != name for layer in held]
        if others:
            found.append(Variant("layers", f"without {name}", _around(code, WITHOUT_PARAMETERS, others)))
            found.append(Variant("layers", f"{name} alone", _around(code, WITHOUT_PARAMETERS, layers)))
    return found


def layer_groups(parameters: Sequence[str]) -> dict[str, list[int]]:
    """Neighbouring layers in four groups at most, by name; -1 stands for what belongs to no layer."""
    numbers = sorted({layer_of(name) for name in parameters} - {-1})
    step = max(1, -(-len(numbers) // MOST_GROUPS))
    groups: dict[str, list[int]] = {}
    for start in range(0, len(numbers), step):
        held = numbers[start : start + step]
        name = f"layer {held[0]}" if len(held) == 1 else f"layers {held[0]} to {held[-1]}"
        groups[name] = held
    if any(layer_of(name) == -1 for name in parameters):
        groups["what is in no layer"] = [-1]
    return groups


def layer_of(parameter: str) -> int:
    """The number of a parameter's layer, -1 where it has none."""
    found = re.search(r"\.(\d+)\.", parameter)
    return int(found[1]) if found else -1


def _around(code: str, template: str, kept: Sequence[str | int]) -> str:
    """The program under another name, and a merge_models around it."""
    tree = copy.deepcopy(parsed(code))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    whole = WHOLE
    while whole in names:
        whole += "_"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == FUNCTION:
            node.id = whole
        elif isinstance(node, ast.FunctionDef) and node.name == FUNCTION:
            node.name = whole
    return unparsed(tree) + "\n" + template.format(whole=whole, kept=list(kept))


def _tidied(tree: ast.Module) -> ast.Module:
    """The tree itself, without texts, without `pass` where it is not needed, and without an empty `else`."""
    for node, field, body in list(_bodies(tree)):
        body[:] = [s for s in body if not (isinstance(s, ast.Pass) or _is_text(s))]
        if not body and field == "body" and not isinstance(node, ast.Module):
            body.append(ast.Pass())
    return tree


def _bodies(tree: ast.AST) -> Iterator[tuple[ast.AST, str, list[ast.stmt]]]:
    """Every list of statements with the node and the field it belongs to."""
    for node in ast.walk(tree):
        for field, value in ast.iter_fields(node):
            if isinstance(value, list) and field in ("body", "orelse", "finalbody"):
                yield node, field, value


def _itself(tree: ast.Module) -> list[tuple[list[ast.stmt], int]]:
    return [(tree.body, place) for place, node in enumerate(tree.body) if _is_function(node)]


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == FUNCTION


def _is_text(node: ast.stmt) -> bool:
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    return False


def _numbers(node: ast.AST, whole: bool) -> Iterator[ast.Constant]:
    """The numbers in an expression; whole ones only where `whole`: in calls they are sizes and dimensions."""
    match node:
        case ast.Constant(value=float()):
            yield node
        case ast.Constant(value=int() as value) if whole and not isinstance(value, bool):
            yield node
        case ast.JoinedStr():
            return
        case ast.Subscript(value=value):
            yield from _numbers(value, whole)
        case _:
            inner = isinstance(node, ast.BinOp) or (whole and not isinstance(node, ast.Call))
            for child in ast.iter_child_nodes(node):
                yield from _numbers(child, inner)
