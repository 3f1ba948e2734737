"""Reading and writing the config of a run: YAML and `--set` in, frozen settings or one clear sentence out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from selfdev.config.settings import Config, Section, lab_model
from selfdev.errors import SelfdevError

__all__ = ["Config", "changed", "config_schema", "dump", "lab_model", "load_config", "parse_config"]


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Config from a YAML file and `section.key=value` overrides; SelfdevError tells all problems at once."""
    path = Path(path)
    try:
        data = _parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SelfdevError(f"config {path} cannot be read: {error.strerror}; give a YAML file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SelfdevError(
            f"config {path} is not valid YAML: {_one_line(error)}; correct it there."
        ) from None
    if not isinstance(data, dict):
        raise SelfdevError(
            f"config {path} must hold keys such as name, models and task; see configs/lab.yaml."
        )
    for override in overrides:
        _override(data, override)
    return parse_config(data, str(path))


def changed(config: Config, overrides: Sequence[str], source: str) -> Config:
    """The config with `section.key=value` overrides; `source` names them in a SelfdevError."""
    data = config.model_dump(mode="json")
    for override in overrides:
        _override(data, override)
    return parse_config(data, source)


def parse_config(data: dict[str, Any], source: str) -> Config:
    """Config from plain values; `source` names them in the SelfdevError that tells all problems."""
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        problems = [_problem(e["type"], e["loc"], e["msg"], e["input"]) for e in error.errors()]
    count = "" if len(problems) == 1 else f" {len(problems)} problems:"
    raise SelfdevError(f"config {source}:{count} {'; '.join(problems)}.")


def dump(config: Config) -> str:
    """YAML text of every value, also of the defaults; `load_config` reads it back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def config_schema() -> dict[str, Any]:
    """JSON schema of the config, for editors and checkers."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


class _Loader(yaml.SafeLoader):
    """Safe YAML that also reads 1e-6 as a number and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"line {line} has the key {key!r}, and a key must be a word")
            if key in seen:
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1} has the key {key!r} a second time")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def _parse(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except (ValueError, KeyError, AttributeError) as error:  # PyYAML's own, of 2001-99-99 and !!bool x
        raise yaml.YAMLError(f"it has a value that cannot be read ({error})") from None


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not last:
        raise SelfdevError(
            f"--set {override} must have the form section.key=value, e.g. factory.programs=64."
        )
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise SelfdevError(
                f"--set {override}: {section} is a value, not a section; see selfdev config-schema."
            )
    try:
        data[last] = _parse(value)
    except yaml.YAMLError as error:
        raise SelfdevError(
            f"--set {override}: the value is not valid YAML ({_one_line(error)}); quote it."
        ) from None


def _problem(kind: str, where: tuple[int | str, ...], message: str, value: object) -> str:
    """One problem in words: the key, its value, the rule, the next step."""
    key = ".".join(str(part) for part in where)
    if kind == "extra_forbidden":
        return f"unknown key {key}, {_nearest(where)}"
    if kind == "missing":
        return f"{key} is missing and has no default, add it"
    if kind == "too_short":
        return f"{key} is empty and must have at least one entry"
    if kind in ("model_type", "model_attributes_type"):
        return f"{key} is {value!r} and must be a section of its own keys"
    rule = message.removeprefix("Value error, ").removeprefix("Input ").replace("should", "must")
    return f"{key} is {value!r} and {rule}" if rule.startswith("must") else rule


def _nearest(where: tuple[int | str, ...]) -> str:
    """The valid key most like an unknown one: of its own section, the same name elsewhere, then anything."""
    *sections, last = (part for part in where if isinstance(part, str))
    keys = _keys()
    own = [key for key in keys if key.split(".")[:-1] == sections]
    near = difflib.get_close_matches(".".join([*sections, last]), own, 1, 0.8)
    near += [key for key in keys if key.split(".")[-1] == last]
    near += difflib.get_close_matches(".".join([*sections, last]), own, 1, 0.0)
    return f"the nearest valid key is {near[0]}"


def _keys() -> list[str]:
    """Every valid key as section.key, sections included."""
    keys = []
    for name, field in Config.model_fields.items():
        keys.append(name)
        for section in (field.annotation, *get_args(field.annotation)):  # or a list of them
            if isinstance(section, type) and issubclass(section, Section):
                keys += [f"{name}.{key}" for key in section.model_fields]
    return keys


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
