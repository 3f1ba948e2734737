"""What would run while a program is being defined, before merge_models is called: nothing of its own.

Outside of functions a program may import, define, and compute constants with allowed modules and harmless
builtins. Its own functions, classes and lambdas may be named there, but not called, not handed to a call, and
not put where the interpreter calls them by itself.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from selfdev.gate import rules
from selfdev.gate.nodes import Function, Rejected, at, is_main_guard

# What a name stands for: where it was imported from, a dotted path, or one of these.
VALUE, OWN, CLASS, ENUM = "a value", "own code", "an own class", "an own class that may be an enumeration"
Scope = dict[str, str]


class TopLevel:
    """A walk over the statements that run at import, in their order."""

    def __init__(self, code: str) -> None:
        self._code = code

    def check(self, body: list[ast.stmt], scope: Scope) -> None:
        """Raise Rejected where anything would happen; `scope` takes up the names that the body binds."""
        for node in body:
            match node:
                case ast.Import() | ast.ImportFrom():
                    _import(node, scope)
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    self._definition(node, scope)
                    scope[node.name] = OWN
                case ast.ClassDef():
                    scope[node.name] = self._class(node, scope)
                case ast.Assign() | ast.AnnAssign():
                    self._constant(node, scope)
                case ast.Pass() | ast.Expr(value=ast.Constant()):
                    continue
                case ast.If() if is_main_guard(node):
                    continue
                case _:
                    what = self._text(node)
                    raise at(node, f"runs at import: `{what}`; keep to imports, functions, constants")

    def _constant(self, node: ast.Assign | ast.AnnAssign, scope: Scope) -> None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        parts = [part for target in targets for part in ast.walk(target)]
        if any(isinstance(part, ast.Attribute | ast.Subscript) for part in parts):
            raise at(node, "only plain names may be assigned outside of functions")
        if isinstance(node, ast.AnnAssign):
            self._pure(node.annotation, scope)
        if node.value is not None:
            self._pure(node.value, scope)
            means = OWN if _mentions_own(node.value, scope) else VALUE
            scope.update({part.id: means for part in parts if isinstance(part, ast.Name)})

    def _definition(self, node: Function, scope: Scope) -> None:
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
        annotations = [a.annotation for a in every] + [node.returns]
        for expression in (*arguments.defaults, *arguments.kw_defaults, *annotations):
            if expression is not None:
                self._pure(expression, scope)
        names = {self._decorator(expression, scope) for expression in node.decorator_list}
        if "classmethod" in names and names & {"property", "cached_property"}:
            raise at(node, f"{node.name} may not be a class method and a property: looked up, it would run")

    def _decorator(self, expression: ast.expr, scope: Scope) -> str:
        """The name of a decorator, which is called at once: one that does not call what it is given."""
        self._pure(expression, scope)
        self._callee(expression, scope)
        function, given = expression, []
        if isinstance(expression, ast.Call):
            function, given = expression.func, [*expression.args, *(k.value for k in expression.keywords)]
        name = (_origin(function, scope) or "").rpartition(".")[2]
        # With a function as argument torch.no_grad and lru_cache wrap that one, and call it with ours.
        plain = all(isinstance(a, ast.Constant) or _is_dtype(a, scope) for a in given)
        if name not in rules.DECORATORS or not plain:
            known = "@torch.no_grad(), @dataclass, @staticmethod, @property, @functools.lru_cache"
            raise at(expression, f"`@{self._text(expression)}` is not allowed; use one such as {known}")
        return name

    def _class(self, node: ast.ClassDef, scope: Scope) -> str:
        """What the name of a class stands for."""
        for base in node.bases:
            self._pure(base, scope)
        for expression in node.decorator_list:
            self._decorator(expression, scope)
        self.check(node.body, dict(scope))
        if not any(_may_be_enum(base, scope) for base in node.bases):
            return CLASS
        # An enumeration makes its members at import, with functions of the class and of its other bases.
        mixed = any(_mentions_own(base, scope) and not _is_own_enum(base, scope) for base in node.bases)
        if mixed or any(_mentions_own(item, scope) for item in node.body):
            raise at(node, f"{node.name} may be an enumeration by its bases; it may hold constants only")
        return ENUM

    def _pure(self, tree: ast.expr, scope: Scope) -> None:
        """What is evaluated while defining may call only allowed modules and harmless builtins."""
        if loops := _loop_names(tree, scope):
            scope = scope | loops
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                self._callee(node.func, scope)
            elif isinstance(node, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr):
                raise at(node, "only constants may be computed outside of functions")
        holders = _own_holders(tree, scope)
        for call in _evaluated(tree) if holders else ():
            if isinstance(call, ast.Call) and holders & {id(part) for part in _given(call, scope)}:
                what = self._text(call)
                raise at(call, f"`{what}` could call this program's own code at import; do it in a function")

    def _callee(self, function: ast.expr, scope: Scope) -> None:
        root = function.func if isinstance(function, ast.Call) else function
        while isinstance(root, ast.Attribute | ast.Subscript):
            root = root.value
        if isinstance(root, ast.Constant):  # a method of a literal
            return
        known = isinstance(root, ast.Name) and (
            scope[root.id] not in (VALUE, OWN, CLASS, ENUM)
            if root.id in scope
            else root.id in rules.PURE_BUILTINS
        )
        if not known:
            raise at(function, f"`{self._text(function)}` is called outside of a function")

    def _text(self, node: ast.AST) -> str:
        # Not ast.unparse: it cannot write a number of very many digits.
        return (ast.get_source_segment(self._code, node) or "").split("\n")[0][:60]


def _import(node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            scope[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        else:
            package = alias.name.split(".")[0]
            scope[alias.asname or package] = alias.name if alias.asname else package


def _origin(function: ast.expr, scope: Scope) -> str | None:
    """Where what an expression names comes from, as a dotted path; None where its text does not tell."""
    match function:
        case ast.Attribute(value=value, attr=name):
            parent = _origin(value, scope)
            return None if parent is None else f"{parent}.{name}"
        case ast.Name(id=name):
            means = scope.get(name, name)  # what nobody bound is a builtin
            return None if means in (VALUE, OWN, CLASS, ENUM) else means
    return None


def _may_be_enum(base: ast.expr, scope: Scope) -> bool:
    """Whether a base, as far as its text tells, could be an enumeration, or a thing that is no class."""
    root = base.value if isinstance(base, ast.Subscript) else base
    if isinstance(root, ast.Name) and scope.get(root.id) == CLASS:
        return False
    origin = _origin(root.func if isinstance(root, ast.Call) else root, scope)
    if origin is None or (isinstance(root, ast.Call) and not origin.lower().endswith("namedtuple")):
        return True
    return any(part == "enum" or part.endswith(("Enum", "Flag")) for part in origin.split("."))


def _is_own_enum(base: ast.expr, scope: Scope) -> bool:
    return isinstance(base, ast.Name) and scope.get(base.id) == ENUM


def _is_dtype(tree: ast.expr, scope: Scope) -> bool:
    return bool(re.fullmatch(r"torch\.b?float\d+", _origin(tree, scope) or ""))


def _given(call: ast.Call, scope: Scope) -> Iterator[ast.expr]:
    """What a call calls and hands over, but for the one argument that is known to be kept for later."""
    keeps = _origin(call.func, scope) == "dataclasses.field"
    yield call.func
    yield from call.args
    yield from (k.value for k in call.keywords if not (keeps and k.arg == "default_factory"))


def _loop_names(tree: ast.expr, scope: Scope) -> Scope:
    """The names that comprehensions bind; own code where any of them goes over own code."""
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.comprehension)]
    holders = _own_holders(tree, scope) if loops else set()
    means = OWN if any(id(loop.iter) in holders for loop in loops) else VALUE
    parts = (part for loop in loops for part in ast.walk(loop.target))
    return {part.id: means for part in parts if isinstance(part, ast.Name)}


def _mentions_own(tree: ast.AST, scope: Scope) -> bool:
    """Whether a value has, or could have, a function, class or lambda of the program in it."""
    return id(tree) in _own_holders(tree, scope)


def _own_holders(tree: ast.AST, scope: Scope) -> set[int]:
    """The ids of the nodes that have such a thing in them, found in one pass."""
    found: set[int] = set()
    for node in reversed(list(_evaluated(tree))):  # children before their parents
        own = isinstance(node, ast.Lambda | Function | ast.ClassDef) or (
            isinstance(node, ast.Name) and scope.get(node.id) in (OWN, CLASS, ENUM)
        )
        if own or any(id(child) in found for child in ast.iter_child_nodes(node)):
            found.add(id(node))
    return found


def _evaluated(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of an expression without the insides of its lambdas, which wait to be called."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(ast.iter_child_nodes(node.args if isinstance(node, ast.Lambda) else node))


__all__ = ["Rejected", "TopLevel"]
