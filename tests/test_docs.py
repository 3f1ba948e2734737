"""The documents against the code: commands, config keys and values, file names and links."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from conftest import Family
from typer.core import TyperGroup

from selfdev.cli.cli import app
from selfdev.config.config import load_config, parse_config
from selfdev.config.settings import Config, Section
from selfdev.gate import gate
from selfdev.lab.recipes import RECIPES
from selfdev.library import builtin_names, load_program
from selfdev.merge import merge
from selfdev.records import State

ROOT = Path(__file__).parents[1]
DOCS = (
    "README.md", "ARCHITECTURE.md", "PAPER.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md",
    "docs/cluster.md",
)  # fmt: skip
GRADES = {"A", "B2", "B1", "D", "NF"}
CITES = re.compile(r"PAPER\.md: ([^,.]+)")
GRADED = re.compile(r"PAPER\.md: [^()]*\((A|B1|B2|D)\b")
# Paths the documents speak of that exist only after a run, or that the reader has.
NOT_IN_THE_REPOSITORY = ("runs/", "models/", "best/", "factory/")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """The fenced blocks of one language in a document."""
    return re.findall(rf"^```{language}\n(.*?)^```$", read(name), re.DOTALL | re.MULTILINE)


def rows(name: str, first: str) -> list[list[str]]:
    """The cells of the table whose header starts with `first`, header and rule left out."""
    lines = read(name).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |")) + 2
    table = lines[start : next(i for i in range(start, len(lines) + 1) if lines[i : i + 1] in ([""], []))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def commands(name: str) -> list[list[str]]:
    """Every command in the shell blocks of a document, as words, joined by `&&` or not."""
    found = []
    for line in "".join(blocks(name, "sh")).replace("\\\n", " ").splitlines():
        for command in line.split("&&"):
            words = shlex.split(command, comments=True)
            if words:
                found.append(words)
    return found


def all_commands() -> list[list[str]]:
    return [words for name in DOCS for words in commands(name)]


def verb(words: list[str]) -> tuple[Any, list[str]]:
    """The command object that `selfdev ...` reaches, and the words left for it."""
    command: Any = typer.main.get_command(app)
    while isinstance(command, TyperGroup):
        assert words, "a command is not complete"
        assert words[0] in command.commands, f"there is no verb {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def verbs(command: Any, path: str = "selfdev") -> Iterator[str]:
    """Every verb that exists, with its words."""
    if not isinstance(command, TyperGroup):
        yield path
        return
    for name, inner in command.commands.items():
        yield from verbs(inner, f"{path} {name}")


def own_commands() -> list[list[str]]:
    """The commands of selfdev itself, without what sets variables in front or redirects behind."""
    found = []
    for words in all_commands():
        while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if words[0] in ("selfdev", ".venv/bin/selfdev"):
            found.append(words[1 : words.index(">") if ">" in words else None])
    return found


@pytest.mark.parametrize("words", own_commands(), ids=" ".join)
def test_command_in_the_documents_is_valid(words: list[str]) -> None:
    command, rest = verb(words)
    command.make_context(words[0], rest)  # raises for options and values that do not exist


def test_wrong_commands_would_be_noticed() -> None:
    command, rest = verb(["score", "lab:a/seed", "--no-such-option"])
    with pytest.raises(Exception, match="no-such-option"):
        command.make_context("score", rest)
    with pytest.raises(AssertionError, match="no verb divine"):
        verb(["divine", "runs/demo"])


def test_readme_lists_every_command_and_no_other() -> None:
    listed = {
        re.sub(r"( [A-Z]+)+$", "", cells[0].strip("`").split("(")[0])
        for cells in rows("README.md", "command")
    }
    assert listed == set(verbs(typer.main.get_command(app)))


def test_verbs_named_in_the_text_exist() -> None:
    existing = set(verbs(typer.main.get_command(app)))
    for doc in DOCS:
        for named in re.findall(r"`(selfdev [a-z][a-z-]+(?: [a-z]+)?)", read(doc)):
            assert named in existing or named.rsplit(" ", 1)[0] in existing, f"{doc}: {named}"


def test_help_of_every_listed_command_answers() -> None:
    from typer.testing import CliRunner

    for path in verbs(typer.main.get_command(app)):
        done = CliRunner().invoke(app, [*path.split()[1:], "--help"])
        assert done.exit_code == 0, path


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    asked = {words[-1] for words in all_commands() if words[0] == "make"}
    asked |= {name for doc in DOCS for name in re.findall(r"`make ([a-z]+)`", read(doc))}
    assert {"demo", "test", "check", "setup", "bench"} <= asked <= targets


def test_overrides_in_the_documents_are_accepted() -> None:
    for words in own_commands():
        if words[0] == "run" and words[1].startswith("configs/"):
            overrides = [after for before, after in pairwise(words) if before == "--set"]
            load_config(ROOT / words[1], overrides)


def test_lab_models_in_the_documents_are_ones_that_are_built() -> None:
    named = {match for doc in DOCS for match in re.findall(r"lab:([a-z])/([a-z]\w*)", read(doc))}
    built = {(f, name) for f, r in RECIPES.items() for name in ("seed", *(e.name for e in r.experts))}
    assert named
    assert named <= built


def test_parameters_in_the_documents_fit_the_built_in_program() -> None:
    for words in own_commands():
        if words[0] == "merge":
            given = [after for before, after in pairwise(words) if before == "--param"]
            load_program(words[1], {name: float(value) for name, value in (g.split("=") for g in given)})


def test_config_example_is_valid() -> None:
    (example,) = blocks("README.md", "yaml")
    assert parse_config(yaml.safe_load(example), "README.md").task.shots == 4


def test_question_example_is_a_task(tmp_path: Path) -> None:
    from selfdev.tasks.tasks import grade, load_task

    (example,) = blocks("README.md", "json")
    path = tmp_path / "questions.jsonl"
    path.write_text(example + example.replace("Tom", "Ann"))
    (question,) = load_task(str(path)).dev
    assert question.solution is not None
    assert grade(question.solution, question.answer) == (True, True)


def test_program_example_passes_the_gate_and_merges(family: Family, tmp_path: Path) -> None:
    example = next(block for block in blocks("README.md", "python") if "def merge_models" in block)
    assert gate.parameters(gate.check(example).code) == {"SCALE": 0.4}
    path = tmp_path / "median.py"
    path.write_text(example)
    assert merge(str(path), family.seed, family.experts, parameters={"SCALE": 0.5}).state is State.MERGED


def test_python_example_uses_names_that_exist() -> None:
    example = next(block for block in blocks("README.md", "python") if "Archive(" in block)
    compile(example, "README.md", "exec")
    from selfdev import api
    from selfdev.records import Attempt
    from selfdev.store.archive import Archive

    assert callable(Archive.attempts)
    assert {"outcome", "score", "nearest", "distance"} <= set(Attempt.__dataclass_fields__)
    for name in re.findall(r"`api\.(\w+)`", read("README.md")):
        assert callable(getattr(api, name))


def test_readme_names_every_built_in_program() -> None:
    for name in builtin_names():
        assert f"`{name}`" in read("README.md")


@pytest.mark.parametrize("name", DOCS)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", read(name)):
        assert (ROOT / name).parent.joinpath(target).exists(), target


def test_anchors_exist() -> None:
    for name in DOCS:
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", read(name)):
            headings = re.findall(r"^#+ (.+)$", read(target or name), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{name}: {target}#{anchor}"


def named_files(name: str) -> set[str]:
    """What is set in code font in a document and looks like a path of this repository."""
    words = re.findall(r"`([\w./-]+)`", read(name))
    paths = {
        word for word in words if "/" in word and not word.startswith(("/", "-", *NOT_IN_THE_REPOSITORY))
    }
    return {path for path in paths if re.match(r"(selfdev|tests|configs|scripts|benchmarks|\.ci)/", path)}


@pytest.mark.parametrize("name", DOCS)
def test_files_named_in_the_documents_exist(name: str) -> None:
    made_by_bench = "benchmarks/merge_and_score.json"
    missing = {path for path in named_files(name) - {made_by_bench} if not (ROOT / path).exists()}
    assert missing == set()


def test_architecture_names_every_source_file() -> None:
    named = named_files("ARCHITECTURE.md")
    folders = {"selfdev/programs/"}
    for path in sorted((ROOT / "selfdev").rglob("*.py")):
        relative = path.relative_to(ROOT).as_posix()
        if path.name != "__init__.py" and not relative.startswith(tuple(folders)):
            assert relative in named, relative
    assert folders <= named
    beside = [path for folder in ("scripts", "benchmarks", "configs") for path in (ROOT / folder).iterdir()]
    kept = {path.relative_to(ROOT).as_posix() for path in beside if path.suffix in (".py", ".yaml")}
    assert kept <= named


def test_names_in_the_paper_tables_exist() -> None:
    """`name` in `file` stands for something defined there."""
    for doc in ("PAPER.md", "ARCHITECTURE.md"):
        found = re.findall(r"`([\w.]+)` in `(selfdev/[\w/]+\.py)`", read(doc))
        assert found
        for name, file in found:
            last = name.split(".")[-1]
            assert re.search(rf"^\s*(def|class) {last}\b", read(file), re.MULTILINE), f"{name} in {file}"


def settings() -> dict[str, str]:
    """Every config key that is a value, with its description."""
    found: dict[str, str] = {}
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            found |= {f"{name}.{key}": f.description or "" for key, f in section.model_fields.items()}
        else:
            found[name] = field.description or ""
    return found


def settings_rows() -> list[list[str]]:
    return rows("PAPER.md", "row")


def row_of(key: str) -> list[str]:
    (found,) = (cells for cells in settings_rows() if cells[3] == f"`{key}`")
    return found


@pytest.mark.parametrize("key", [key for key, text in settings().items() if "PAPER.md" in text])
def test_setting_that_cites_the_paper_has_its_row(key: str) -> None:
    description = settings()[key]
    row, _, grade, *_ = row_of(key)
    cited = CITES.search(description)
    assert cited, description
    if cited[1] != "not known":
        assert row.lower() == cited[1].lower()
    graded = GRADED.search(description)
    assert grade.startswith(graded[1]) if graded else grade == "NF", f"{key}: {grade}"


def test_rows_of_the_paper_are_about_real_keys() -> None:
    keys = [cells[3].strip("`") for cells in settings_rows()]
    assert len(keys) == len(set(keys))
    assert set(keys) <= set(settings())


@pytest.mark.parametrize("column", [4, 5], ids=["paper.yaml", "lab.yaml"])
def test_values_in_the_paper_table_are_those_of_the_configs(column: int) -> None:
    config = load_config(ROOT / "configs" / ("paper.yaml" if column == 4 else "lab.yaml"))
    for cells in settings_rows():
        if not cells[column].startswith("`"):
            continue  # told in words
        value: Any = config
        for part in cells[3].strip("`").split("."):
            value = getattr(value, part)
        written = cells[column].strip("`")
        same = float(written) == value if isinstance(value, float) else written == str(value).lower()
        assert same, f"{cells[3]}: PAPER.md says {written}, {config.name} says {value}"


def test_every_fact_and_result_has_a_grade() -> None:
    for first, place in (("row", 2), ("fact", 2), ("limitation", 1), ("result", 3)):
        for cells in rows("PAPER.md", first):
            given = set(re.split(r"[ ,/]+", cells[place])) - {"law"}
            assert given <= GRADES | {"-"}, cells


def test_paper_results_are_those_of_the_readings() -> None:
    table = {cells[0]: cells[1:3] for cells in rows("PAPER.md", "result")}
    assert table["Seed openchat-3.5-1210"] == ["70.1", "0.5"]
    assert table["Task Arithmetic (tuned)"] == ["71.9", "8.5"]
    assert table["Self-Developing, iteration 3"] == ["76.1", "8.5"]


def test_version_is_the_same_everywhere() -> None:
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    cited = yaml.safe_load(read("CITATION.cff"))
    assert cited["version"] == version
    assert cited["license"] == "Apache-2.0"
    assert [a["family-names"] for a in cited["references"][0]["authors"]] == ["Ishibashi", "Yano", "Oyamada"]
    assert f"\n## [{version}]" in read("CHANGELOG.md")


def test_documents_name_no_place_of_one_machine() -> None:
    for name in (*DOCS, "Makefile", ".ci/run", "CITATION.cff"):
        assert not re.search(r"(?<![\w.])/(home|root|work|tmp|opt|Users)/", read(name)), name


def test_ci_runs_check_and_check_ends_with_the_tests() -> None:
    assert read(".ci/run").splitlines()[-1] == "make check"
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
    (recipe,) = re.findall(r"^check: setup\n((?:\t.*\n)+)", read("Makefile"), re.MULTILINE)
    assert recipe.splitlines()[-1].split()[-1] == "test"
