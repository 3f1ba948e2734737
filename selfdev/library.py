"""Programs by name or path: the built-in human-designed ones, a .py file, or a text with a fenced block."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from selfdev.errors import SelfdevError
from selfdev.gate import gate
from selfdev.records import Program

BUILTIN = Path(__file__).parent / "programs"


def builtin_names() -> tuple[str, ...]:
    """Names of the programs that come with the package, sorted."""
    return tuple(sorted(p.stem for p in BUILTIN.glob("*.py") if p.stem != "__init__"))


def load_program(name_or_path: str, parameters: Mapping[str, object] | None = None) -> Program:
    """A built-in program by name, or one from a file, with its top-level constants set to `parameters`.

    Raises SelfdevError when there is no such program or parameter, gate.Rejected when the gate refuses it.
    """
    program = gate.check(_text(name_or_path))
    return gate.check(gate.set_parameters(program.code, parameters)) if parameters else program


def _text(name_or_path: str) -> str:
    if name_or_path in builtin_names():
        return (BUILTIN / f"{name_or_path}.py").read_text(encoding="utf-8")
    path = Path(name_or_path)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SelfdevError(
            f"program {name_or_path} is neither a file nor built in; there are {', '.join(builtin_names())}"
        ) from None
    except OSError as error:
        raise SelfdevError(
            f"program {path} cannot be read ({error.strerror}); give a readable file"
        ) from error
    except UnicodeDecodeError as error:
        raise SelfdevError(f"program {path} is not text in UTF-8; give a .py file or a text") from error
