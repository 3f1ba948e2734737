"""What the gate asks about parts of a program's tree, and how it refuses one."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

from selfdev.errors import one_line

Function = ast.FunctionDef | ast.AsyncFunctionDef
MAX_REASON = 300
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.expr_context, ast.operator)


class Rejected(Exception):
    """The text is no program in the contract; `str(error)` tells its writer why in 300 characters."""

    def __init__(self, reason: str) -> None:
        super().__init__(one_line(reason)[:MAX_REASON])


def at(node: ast.AST, reason: str) -> Rejected:
    """The refusal of a node, with its line."""
    return Rejected(f"line {getattr(node, 'lineno', 0)}: {reason}")


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions and classes inside it."""
    waiting = [function]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            if not isinstance(child, _SCOPES):
                yield child
                waiting.append(child)


def plain_texts(nodes: list[ast.AST]) -> dict[str, list[str]]:
    """Names that are never anything but a string in plain sight, and those strings."""
    found: dict[str, list[str]] = {}
    bound = Counter(n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    bound.update(n.arg for n in nodes if isinstance(n, ast.arg))
    bound.update(n.asname or n.name for n in nodes if isinstance(n, ast.alias))
    named = Function | ast.ClassDef | ast.ExceptHandler | ast.MatchAs | ast.MatchStar
    bound.update(n.name for n in nodes if isinstance(n, named) and n.name)
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                found.setdefault(name, []).append(text)
    return {name: texts for name, texts in found.items() if len(texts) == bound[name]}


def docstring(node: ast.AST) -> ast.Constant | None:
    """The docstring of a module, function or class, as a node."""
    match node:
        case ast.Module(body=[ast.Expr(value=ast.Constant(value=str()) as text), *_]):
            return text
        case ast.FunctionDef(body=[ast.Expr(value=ast.Constant(value=str()) as text), *_]):
            return text
        case ast.ClassDef(body=[ast.Expr(value=ast.Constant(value=str()) as text), *_]):
            return text
    return None


def is_main_guard(node: ast.If) -> bool:
    """`if __name__ == "__main__":`, which is never true here."""
    match node.test:
        case ast.Compare(
            left=ast.Name(id="__name__"), ops=[ast.Eq()], comparators=[ast.Constant("__main__")]
        ):
            return not node.orelse
    return False
