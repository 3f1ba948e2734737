"""The gate: from what a model wrote to a program in the contract, or to INVALID with a reason that helps.

Nothing is executed here: the text is parsed and its tree is walked. The gate keeps honest programs honest
and turns away the plain attacks early; what gets past it meets the sandbox.
"""

from __future__ import annotations

import ast
import re

from selfdev.gate import rules
from selfdev.gate.extraction import FUNCTION, extract, quiet_parse
from selfdev.gate.imports import TopLevel
from selfdev.gate.nodes import Function, Rejected, at, docstring, own_nodes, plain_texts
from selfdev.gate.parameters import parameters, set_parameters
from selfdev.records import Program

__all__ = ["Rejected", "check", "extract", "parameters", "set_parameters"]

MAX_CHARACTERS = 20_000


def check(text: str) -> Program:
    """The program in a completion; raises Rejected. Runs nothing."""
    if len(text) > MAX_CHARACTERS:
        raise Rejected(f"the text has {len(text)} characters; at most {MAX_CHARACTERS} are read")
    code = extract(text)
    if not code.strip():
        raise Rejected(f"no code found; write one Python function `def {FUNCTION}(models, device):`")
    try:
        tree = _parse(code)
        _check_contract(tree)
        _Walk(tree).check()
        TopLevel(code).check(tree.body, {"torch": "torch", "math": "math"})
    except RecursionError:
        raise Rejected("the program is nested too deeply") from None
    return Program(code)


def _parse(code: str) -> ast.Module:
    try:
        return quiet_parse(code)
    except SyntaxError as error:
        lines = code.split("\n")
        number = error.lineno or 0
        line = lines[number - 1].strip()[:80] if 0 < number <= len(lines) else ""
        last = max((i for i, text in enumerate(lines, 1) if text.strip()), default=0)
        cut = " (the text seems to be cut off)" if number >= last else ""
        raise Rejected(f"syntax error at line {number}: {error.msg}{cut}: {line}") from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise Rejected(f"cannot be parsed: {str(error)[:100] or 'nested too deeply'}") from None


def _check_contract(tree: ast.Module) -> None:
    """One function of the right name, callable with two arguments, that returns something."""
    functions = [node for node in tree.body if isinstance(node, Function)]
    found = [node for node in functions if node.name == FUNCTION]
    if not found:
        other = f"; it defines {functions[-1].name}" if functions else ""
        raise Rejected(f"no function `def {FUNCTION}(models, device):` at top level{other}")
    if len(found) > 1:
        raise Rejected(f"{FUNCTION} is defined {len(found)} times; define it once")
    function = found[0]
    if isinstance(function, ast.AsyncFunctionDef):
        raise Rejected(f"{FUNCTION} is async; write a plain function")
    _check_signature(function.args)
    own = list(own_nodes(function))
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own):
        raise Rejected(f"{FUNCTION} yields; it must return the dict of merged tensors")
    returns = any(isinstance(node, ast.Return) and node.value is not None for node in own)
    if not returns and _falls_through(function.body[-1]):
        raise Rejected(f"{FUNCTION} never returns a value (cut off?); return the dict name -> merged tensor")


def _falls_through(last: ast.stmt) -> bool:
    """False for an endless loop or a raise: it shows when it runs, as a time-out or an error."""
    endless = isinstance(last, ast.While) and isinstance(last.test, ast.Constant) and bool(last.test.value)
    return not (endless or isinstance(last, ast.Raise))


def _check_signature(arguments: ast.arguments) -> None:
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    takes_two = len(positional) >= 2 or arguments.vararg is not None
    keywords = [a.arg for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is None]
    if required > 2 or not takes_two or keywords:
        names = ", ".join([a.arg for a in positional] + keywords)
        raise Rejected(f"{FUNCTION}({names[:80]}) cannot be called as {FUNCTION}(models, device)")


class _Walk:
    """Every node against the lists."""

    def __init__(self, tree: ast.Module) -> None:
        self._nodes = list(ast.walk(tree))
        self._own = {
            n.attr for n in self._nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)
        }
        self._own |= {n.name for n in self._nodes if isinstance(n, Function)}
        self._own = (self._own - rules.ATTRIBUTES) | {"_replace", "_asdict"}
        self._texts = plain_texts(self._nodes)

    def check(self) -> None:
        """Raise Rejected at the first thing that is not allowed."""
        self._called = {id(node.func) for node in self._nodes if isinstance(node, ast.Call)}
        self._docstrings = {id(d) for n in self._nodes if (d := docstring(n)) is not None}
        for node in self._nodes:
            match node:
                case ast.Attribute():
                    self._attribute(node.attr, node)
                    if node.attr in rules.FORMATS:
                        self._format(node)
                case ast.Name(id=name):
                    self._name(name, node)
                case ast.Import() | ast.ImportFrom():
                    self._import(node)
                case ast.Call():
                    self._call(node)
                case ast.Constant(value=str(text)) if id(node) not in self._docstrings:
                    if found := rules.DUNDER_TEXT.search(text):
                        raise at(node, f"the string contains {found.group()}")
                case ast.MatchClass():
                    for attribute in node.kwd_attrs:
                        self._attribute(attribute, node)
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    if _is_dunder(name) and name not in rules.DUNDER_METHODS:
                        raise at(node, f"a class may not define {name}")
                case ast.ClassDef():
                    self._class(node)
                case ast.alias(asname=str(name)):
                    self._name(name, node)

    def _attribute(self, name: str, node: ast.AST) -> None:
        from_re = (
            isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "re"
        )
        if name in rules.ATTRIBUTES or (name == "compile" and not from_re):
            raise at(node, f".{name} is not allowed: programs compute on tensors, without files or system")
        if _is_dunder(name):
            if name not in rules.DUNDER_ATTRIBUTES:
                raise at(node, f".{name} is not allowed: no double-underscore attributes")
        elif name.startswith("_") and name not in self._own:
            raise at(node, f".{name} is not allowed: no private attributes")

    def _format(self, node: ast.Attribute) -> None:
        """What is formatted stands in plain sight: `"{0.a.b}".format(x)` walks attributes."""
        match node.value:
            case ast.Constant(value=str(text)):
                texts = [text]
            case ast.Name(id=name) if name in self._texts:
                texts, self._texts[name] = self._texts[name], []  # each is looked at once
            case _:
                raise at(node, f".{node.attr} needs a plain string in front of it; an f-string does it too")
        for field in (field for text in texts for field in re.findall(r"\{([^{}:!]*)", text)):
            for name in re.findall(r"\.(\w+)", field):
                self._attribute(name, node)

    def _name(self, name: str, node: ast.AST) -> None:
        if name in ("getattr", "hasattr") and id(node) not in self._called:
            raise at(node, f"{name} may only be called, with the attribute's name as a plain string")
        # Only read: bound to "__main__" it would wake the main guard.
        read = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and name == "__name__"
        if name in rules.NAMES or (_is_dunder(name) and not read):
            raise at(node, f"{name} is not allowed")

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                self._module(alias.name, node)
            return
        if node.level:
            raise at(node, "relative imports are not allowed")
        self._module(node.module or "", node)
        for alias in node.names:
            if alias.name == "*":
                raise at(node, f"`from {node.module} import *` is not allowed; name what you need")
            self._attribute(alias.name, node)

    def _module(self, name: str, node: ast.AST) -> None:
        if name.split(".")[0] not in rules.MODULES:
            allowed = (
                "torch, torch.nn.functional, numpy, math, re, copy, collections, itertools, functools, typing"
            )
            raise at(node, f"import of {name[:60]} is not allowed; use {allowed}")
        if "." in name and name not in rules.SUBMODULES:
            raise at(node, f"import of {name[:80]} is not allowed")

    def _call(self, node: ast.Call) -> None:
        """getattr and hasattr only with a name in plain sight; type with one argument."""
        match node.func:
            case ast.Name(id="getattr" | "hasattr" as function):
                match node.args:
                    case [_, ast.Constant(value=str(name)), *_] if name not in rules.FORMATS:
                        self._attribute(name, node)
                    case _:
                        raise at(node, f"{function} needs the attribute's name as a plain string")
            case ast.Name(id="type") if len(node.args) != 1 or node.keywords:
                raise at(node, "type(...) with several arguments is not allowed")

    def _class(self, node: ast.ClassDef) -> None:
        if node.keywords:
            raise at(node, "class keywords such as metaclass= are not allowed")
        if _is_dunder(node.name):
            raise at(node, f"no class may be named {node.name}")


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
