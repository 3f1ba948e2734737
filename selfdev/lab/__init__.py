"""The built-in lab: tiny real models, their questions, and the programs the seed learned to write."""

from __future__ import annotations

from pathlib import Path

from selfdev.errors import SelfdevError

MODELS = Path(__file__).parent / "models"
FAMILIES = ("a", "b")


def paths() -> dict[str, dict[str, object]]:
    """Where the built-in models lie: family -> {"seed": folder, "experts": {name: folder}}."""
    return {
        family: {
            "seed": str(MODELS / family / "seed"),
            "experts": {name: str(MODELS / family / name) for name in experts(family)},
        }
        for family in FAMILIES
    }


def experts(family: str) -> list[str]:
    """Names of a family's experts, in alphabetical order."""
    return sorted(f.name for f in (MODELS / family).iterdir() if f.is_dir() and f.name != "seed")


def builtin(family: str, name: str) -> Path:
    """Folder of a built-in model; SelfdevError names what there is."""
    path = MODELS / family / name
    if family not in FAMILIES or not (path / "config.json").is_file():
        known = [f"lab:{f}/{n}" for f in FAMILIES if (MODELS / f).is_dir() for n in ["seed", *experts(f)]]
        raise SelfdevError(f"lab:{family}/{name} is not a built-in model; choose from {', '.join(known)}.")
    return path
