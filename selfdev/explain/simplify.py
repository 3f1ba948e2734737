"""The simplest program that still passes a check: things are taken out one by one, and stay out if it does.

Which programs are simpler is seen in the text; whether one is still the same is for the check, which runs it.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from selfdev.explain.variants import (
    constants,
    first_line,
    parsed,
    plain,
    simpler,
    statements,
    unparsed,
    with_constant,
    without_statement,
)
from selfdev.gate.extraction import FUNCTION

Check = Callable[[str], bool]  # is this program still the same?
Tell = Callable[[int, int], None]  # moves tried, and known of


@dataclass(frozen=True, slots=True)
class Step:
    """One thing taken out, in words, and the program without it."""

    words: str
    code: str


Moves = Callable[[str], Iterator[Step]]


def simplify(code: str, same: Check, tell: Tell = lambda *_: None) -> tuple[str, list[Step]]:
    """The program with everything taken out that `same` lets go, and the steps; comments go first.

    It ends when nothing more goes. `tell` is given the moves that were tried, and known of, so far.
    """
    if not same(plain(code)):
        return code, []
    current, taken = plain(code), list[Step]()
    sweep = _Sweep(same, tell)
    while steps := sweep(current, deletions) or sweep(current, roundings):
        taken += steps
        current = steps[-1].code
    return current, taken


class _Sweep:
    """Goes once through the moves, each from where the last success led; keeps what was refused."""

    def __init__(self, same: Check, tell: Tell) -> None:
        self._same, self._tell = same, tell
        self._refused: set[str] = set()
        self._tried = 0

    def __call__(self, code: str, moves: Moves) -> list[Step]:
        """The moves that were let go, in their order."""
        todo, place, taken = list(moves(code)), 0, list[Step]()
        while place < len(todo):
            step = todo[place]
            self._tried += 1
            self._tell(self._tried, self._tried + len(todo) - place)
            if step.code not in self._refused and self._same(step.code):
                taken.append(step)
                todo = list(moves(step.code))
            else:
                self._refused.add(step.code)
                place += 1
        return taken


def deletions(code: str) -> Iterator[Step]:
    """Every program with one thing less: the last statements first, which nothing else needs."""
    tree = parsed(code)
    held = statements(tree)
    for number in reversed(range(len(held))):
        body, place = held[number]
        if not _goes_to_device(tree, body[place]):
            yield Step(f"deleted `{first_line(body[place])}`", without_statement(tree, number))
    yield from _blocks(tree)
    yield from _operands(tree)


def roundings(code: str) -> Iterator[Step]:
    """Every program with one simpler constant."""
    tree = parsed(code)
    for number, (constant, statement) in enumerate(constants(tree)):
        assert isinstance(constant.value, int | float)
        for value in simpler(constant.value):
            words = f"{constant.value!r} → {value!r} in `{first_line(statement)}`"
            yield Step(words, with_constant(tree, number, value))


def count(code: str) -> int:
    """How many statements a program has."""
    return len(statements(parsed(code)))


def _blocks(tree: ast.Module) -> Iterator[Step]:
    """One branch of an `if`, the inside of a `with` or `try`, in place of the whole."""
    for number, (body, place) in enumerate(statements(tree)):
        for field in _branches(body[place]):
            changed = copy.deepcopy(tree)
            held, at = statements(changed)[number]
            inside = dict(ast.iter_fields(held[at]))[field]
            held[at : at + 1] = inside
            yield Step(f"only the {_BRANCH[field]} of `{first_line(body[place])}`", unparsed(changed))


_BRANCH = {"body": "inside", "orelse": "`else`"}


def _branches(node: ast.stmt) -> tuple[str, ...]:
    match node:
        case ast.If(orelse=[]) | ast.With() | ast.Try():
            return ("body",)
        case ast.If():
            return ("body", "orelse")
    return ()


def _operands(tree: ast.Module) -> Iterator[Step]:
    """One side of an operation, or what a method without arguments was called on, in place of the whole."""
    for number, node in enumerate(_operations(tree)):
        for field in ("left", "right") if isinstance(node, ast.BinOp) else ("body", "orelse", "func"):
            changed = copy.deepcopy(tree)
            whole = _operations(changed)[number]
            inside = dict(ast.iter_fields(whole)).get(field)
            if field == "func" and isinstance(inside, ast.Attribute):
                inside = inside.value
            if isinstance(inside, ast.expr):
                words = f"`{first_line(whole)}` → `{first_line(inside)}`"
                yield Step(words, unparsed(_Put(whole, inside).visit(changed)))


def _operations(tree: ast.Module) -> list[ast.expr]:
    """Operations, choices and calls of methods without arguments."""
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        match node:
            case ast.BinOp() | ast.IfExp() | ast.Call(func=ast.Attribute(), args=[], keywords=[]):
                found.append(node)
    return found


class _Put(ast.NodeTransformer):
    """Puts one expression in another's place."""

    def __init__(self, old: ast.expr, new: ast.expr) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        """The node, or what stands in its place."""
        return self._new if node is self._old else self.generic_visit(node)


def _goes_to_device(tree: ast.Module, node: ast.stmt) -> bool:
    """Whether a statement moves what it assigns to the device: on a machine with one device nobody sees
    what that is for."""
    if not isinstance(node, ast.Assign):
        return False
    function = next(f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name == FUNCTION)
    arguments = [*function.args.posonlyargs, *function.args.args]
    device = arguments[1].arg if len(arguments) > 1 else ""
    read = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
    set_ = {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return device in read and bool(read & set_)
