"""Real runs of the whole loop on a tiny family: real sampling, sandbox, scoring, DPO, archive and report."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Family
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from writing_family import HEAD, PROGRAMS, build
from writing_run import rows, settings

from selfdev import api, run
from selfdev.checkpoints import open_checkpoint, tensor
from selfdev.collect import UNFINISHED, load_result
from selfdev.config.config import load_config
from selfdev.errors import SelfdevError
from selfdev.gate import gate
from selfdev.interrupt import Stop
from selfdev.records import Attempt, Outcome, State
from selfdev.results import RunResult
from selfdev.run import run_config
from selfdev.sandbox import protections
from selfdev.sandbox.layers import in_words, missing
from selfdev.saving import save_program
from selfdev.stats import wilson
from selfdev.store.archive import Archive


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("writing"))


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """Folder and result of one real run."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return folder, run_config(settings(root), folder)


@pytest.fixture
def archive(finished: tuple[Path, RunResult]) -> Any:
    opened = Archive(finished[0] / "archive.sqlite")
    yield opened
    opened.close()


def test_the_winner_is_merged_again_with_the_threads_it_was_scored_with(root: Path, tmp_path: Path) -> None:
    config = settings(root, threads=2)
    code = HEAD + "    assert torch.get_num_threads() == 2\n    return dict(seed)\n"
    best = Attempt(1, "factory", 1, 0, "", code, code, 0, Outcome(State.MERGED))
    seed, *experts = (open_checkpoint(root / name, name) for name in ("seed", "good", "bad"))
    save_program(config, best, seed, experts, tmp_path / "model", "card")
    assert load_file(tmp_path / "model" / "model.safetensors").keys() == seed.slots.keys()


def test_the_run_folder_is_as_designed(finished: tuple[Path, RunResult]) -> None:
    folder, _ = finished
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "environment.json", "archive.sqlite", "factory", "best", "report.html"} <= names
    assert not [name for name in names if name.startswith(".")]
    assert [path.name for path in (folder / "factory").iterdir()] == ["iteration_2"]
    assert {path.name for path in (folder / "best").iterdir()} == {"program.py", "model", "README.md"}


def test_every_written_program_ended(archive: Archive) -> None:
    attempts = archive.attempts("factory")
    assert len(attempts) == 60
    expected = {
        PROGRAMS[-1]: State.INVALID,
        PROGRAMS[-2]: State.CRASHED,
        PROGRAMS[-3]: State.BAD_WEIGHTS,
    }
    written = [a for a in attempts if a.text in PROGRAMS]
    assert len(written) > 30
    for attempt in written:
        assert attempt.outcome.state is expected.get(attempt.text, State.SCORED), attempt.outcome.reason
    assert {a.outcome.state for a in attempts if a.text not in PROGRAMS} == {State.INVALID}


def test_a_copy_of_an_expert_has_the_experts_score_and_is_known_as_copy(archive: Archive) -> None:
    copies = [a for a in archive.attempts("factory") if a.text == PROGRAMS[-4]]
    assert copies
    for attempt in copies:
        assert attempt.outcome.copy_of == "good"
        assert attempt.score is not None
        assert attempt.score.accuracy == 1.0  # the gold answers are this expert's


def test_scores_tell_programs_apart(archive: Archive) -> None:
    near_good, away = PROGRAMS[0], PROGRAMS[6]
    scores = {a.text: a.score.accuracy for a in archive.attempts("factory") if a.score}
    assert scores[near_good] > 0.5 > scores[away]


def test_the_factory_was_refined_on_pairs(finished: tuple[Path, RunResult], archive: Archive) -> None:
    turn = finished[1].iterations[0]
    assert turn.pairs == len(archive.pairs(1)) > 0
    assert turn.dpo == archive.training(1)
    assert turn.check == archive.check(1)
    assert turn.check is not None
    assert (turn.check.trained, turn.check.held_out, turn.check.programs) == (turn.pairs, 0, 64)
    assert turn.check.kl is not None
    assert turn.dpo
    folder = finished[0] / "factory" / "iteration_2"
    AutoModelForCausalLM.from_pretrained(folder)
    AutoTokenizer.from_pretrained(folder)


def test_iterations_are_counted_from_the_archive(finished: tuple[Path, RunResult], archive: Archive) -> None:
    for turn in finished[1].iterations:
        own = archive.attempts("factory", turn.iteration)
        scores = sorted(a.score.accuracy for a in own if a.score)
        assert turn.written == len(own) == sum(turn.states.values())
        assert turn.states["SCORED"] == len(scores)
        assert turn.unique == len({a.fingerprint for a in own if a.score})
        assert turn.dev_scores == tuple(scores)
        assert (turn.dev_best, turn.dev_n) == (scores[-1], 10)
        firsts = [sum(a.score.strict[: turn.dev_common]) / turn.dev_common for a in own if a.score]
        assert turn.dev_common == min(a.score.n for a in own if a.score)
        assert turn.dev_mean == pytest.approx(sum(firsts) / len(firsts))
        assert turn.dev_median is not None
        assert min(firsts) <= turn.dev_median <= max(firsts)
    assert [turn.temperature for turn in finished[1].iterations] == pytest.approx([3.0, 2.5])


def test_the_best_program_is_near_the_good_expert(finished: tuple[Path, RunResult]) -> None:
    folder, result = finished
    assert result.best_program in [gate.check(text).code for text in PROGRAMS[:8]]
    assert (folder / "best" / "program.py").read_text() == result.best_program
    row = next(row for row in result.test if row.name == result.best_name)
    assert row.kind == "discovered"
    assert row.accuracy > 0.5


def test_the_best_model_is_what_the_best_program_makes(root: Path, finished: tuple[Path, RunResult]) -> None:
    folder, result = finished
    named = [(n, open_checkpoint(root / n, n)) for n in ("seed", "good", "bad")]
    models = {n: {k: tensor(s) for k, s in m.slots.items() if ".mlp." in k} for n, m in named}
    space: dict[str, Any] = {"torch": torch}
    exec(result.best_program, space)
    expected = space["merge_models"](models, "cpu")
    best = open_checkpoint(folder / "best" / "model", "best")
    for name, slot in best.slots.items():
        right = expected.get(name, tensor(named[0][1].slots[name]))
        torch.testing.assert_close(tensor(slot), right)


def test_the_best_model_scores_as_in_the_table(root: Path, finished: tuple[Path, RunResult]) -> None:
    folder, result = finished
    row = next(row for row in result.test if row.name == result.best_name)
    task = str(root / "questions.jsonl")
    alone = api.score(folder / "best" / "model", task, shots=0, max_new_tokens=2)
    assert (alone.n, alone.correct) == (row.n, row.correct)
    assert (alone.low, alone.high) == wilson(row.correct, row.n)


def test_the_table_holds_seed_experts_baselines_and_best(finished: tuple[Path, RunResult]) -> None:
    result = finished[1]
    kinds = [row.kind for row in result.test]
    assert kinds == ["seed", "expert", "expert", "baseline", "baseline", "discovered"]
    assert {row.n for row in result.test} == {30}
    good = next(row for row in result.test if row.name == "good")
    assert good.accuracy == 1.0


def test_the_test_set_was_opened_once(finished: tuple[Path, RunResult], archive: Archive) -> None:
    assert len(archive.events("test opened")) == 1
    assert set(archive.examined("test")) == {row.name for row in finished[1].test}


def test_seconds_are_those_of_all_stages(finished: tuple[Path, RunResult]) -> None:
    result = finished[1]
    assert result.seconds == pytest.approx(sum(result.stage_seconds.values()))
    assert all(0 < turn.seconds < result.seconds for turn in result.iterations)


def test_the_config_on_disk_repeats_the_run(root: Path, finished: tuple[Path, RunResult]) -> None:
    assert load_config(finished[0] / "config.yaml") == settings(root)


def test_environment_names_versions_and_protections(finished: tuple[Path, RunResult]) -> None:
    environment = json.loads((finished[0] / "environment.json").read_text())
    assert environment == finished[1].environment
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["protections"]


def test_the_layers_in_force_stand_in_environment_report_and_card(finished: tuple[Path, RunResult]) -> None:
    folder, result = finished
    words = result.environment["confinement"]
    active = {name for name, there in protections().items() if there}
    assert set(words.partition(": ")[2].partition(".")[0].split(", ")) == active
    assert ("Weaker" in words) == bool(missing(active))
    assert words in (folder / "report.html").read_text()
    assert words in (folder / "best" / "README.md").read_text()


def test_the_sentence_on_layers_is_the_same_for_a_list_and_an_iterator() -> None:
    words = "Programs ran in a sandbox of these layers: net_namespace, landlock, seccomp."
    assert in_words(["seccomp", "landlock", "net_namespace"]) == words
    assert in_words(iter(["seccomp", "landlock", "net_namespace"])) == words


def test_a_machine_without_confinement_is_refused_before_anything_is_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "protections", lambda: {"rlimits": True, "seccomp": False})
    with pytest.raises(
        SelfdevError, match=r"kept from files and network .*active: rlimits.*accept_weaker: true"
    ):
        run_config(settings(root), tmp_path / "r")
    assert not (tmp_path / "r").exists()
    accepted = settings(root, sandbox={"accept_weaker": True})
    run.check_confinement(accepted)
    told = run.describe_environment(accepted)
    assert told["accept_weaker"]
    assert (
        "Weaker confinement was accepted: they were not kept from files and network." in told["confinement"]
    )


def test_a_finished_run_is_read_back_and_not_repeated(root: Path, finished: tuple[Path, RunResult]) -> None:
    folder, result = finished
    assert load_result(folder) == result
    assert run_config(settings(root), folder) == result


def test_the_number_of_workers_may_change_when_a_run_goes_on(
    root: Path, finished: tuple[Path, RunResult]
) -> None:
    folder, result = finished
    assert run_config(settings(root, workers=2), folder) == result


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, r"seed = 0 and the config now says 1"),
        ({"factory": {"programs": 31}}, r"factory.programs = 30 and the config now says 31"),
        ({"dpo": {"beta": 0.2}}, r"dpo.beta = 0.1 and the config now says 0.2"),
    ],
)
def test_a_changed_config_is_refused(
    root: Path, finished: tuple[Path, RunResult], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(SelfdevError, match=words):
        run_config(settings(root, **changes), finished[0])


def test_report_is_written_again(finished: tuple[Path, RunResult], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    (copy / "report.html").unlink()
    assert api.report(copy) == copy / "report.html"
    assert finished[1].best_name in (copy / "report.html").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_reports_what_there_is_and_goes_on_to_the_same_rows(
    root: Path, finished: tuple[Path, RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:  # fmt: skip
    results = 0
    store = Archive.set_result

    def interrupted(self: Archive, *args: Any, **named: Any) -> None:
        nonlocal results
        results += 1
        store(self, *args, **named)
        if results == 3:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patched:
        patched.setattr(Archive, "set_result", interrupted)
        with pytest.raises(Stop):
            run_config(settings(root), tmp_path / "run")
    assert 3 <= results <= 4  # with what was in hand
    assert UNFINISHED in (tmp_path / "run" / "report.html").read_text()
    with pytest.raises(SelfdevError, match="holds an unfinished run"):
        load_result(tmp_path / "run")
    again = run_config(settings(root), tmp_path / "run")
    assert again.test == finished[1].test
    assert rows(tmp_path / "run") == rows(finished[0])


def test_two_workers_give_the_same_archive(
    root: Path, finished: tuple[Path, RunResult], tmp_path: Path
) -> None:
    result = run_config(settings(root, workers=2), tmp_path / "run")
    assert rows(tmp_path / "run") == rows(finished[0])
    archives = [Archive(folder / "archive.sqlite") for folder in (tmp_path / "run", finished[0])]
    ours, theirs = ((a.pairs(1), a.factories(), a.examined("finalist_dev")) for a in archives)
    assert ours == theirs
    assert result.test == finished[1].test
    for archive in archives:
        archive.close()


def test_a_run_in_which_nothing_is_valid_ends_well_with_the_seed(
    root: Path, family: Family, tmp_path: Path
) -> None:
    # This family's words are digits: nothing it writes is a program.
    config = settings(
        root,
        models={"seed": str(family.seed), "experts": {n: str(p) for n, p in family.experts.items()}},
        factory={"programs": 6, "iterations": 2, "max_new_tokens": 4},
    )
    result = run_config(config, tmp_path / "run")
    assert [turn.states for turn in result.iterations] == [{"INVALID": 6}, {"INVALID": 6}]
    assert [turn.dev_mean for turn in result.iterations] == [None, None]
    assert sum(result.iterations[0].failures.values()) == 6
    assert (result.best_name, result.best_program) == ("seed", "")
    assert "the best model is the seed itself" in result.notes[0]
    seed, best = open_checkpoint(family.seed, "seed"), open_checkpoint(tmp_path / "run/best/model", "best")
    assert all(torch.equal(tensor(seed.slots[n]), tensor(best.slots[n])) for n in seed.slots)
    assert not (tmp_path / "run" / "best" / "program.py").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": {"test": 31}}, "task.test asks for 31 questions and .* has 30"),
        ({"task": {"dev": 10, "finalist_dev": 21}}, "task.finalist_dev asks for 21 questions and .* has 20"),
        ({"models": {"seed": "nowhere"}}, "seed: nowhere does not exist"),
        ({"models": {"scope": "no_such_part"}}, "matches none of the seed's"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    root: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(SelfdevError, match=words):
        run_config(settings(root, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_by_relative_paths(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    models = {"seed": "seed", "experts": {"good": "good"}}
    config = settings(
        root,
        models=models,
        task={"name": "questions.jsonl"},
        factory={"programs": 2, "iterations": 1, "model": "bad"},
    )
    result = run_config(config.model_copy(update={"baselines": {}}), tmp_path / "run")
    assert (tmp_path / "run" / "best" / "model" / "config.json").is_file()
    assert [row.kind for row in result.test][:2] == ["seed", "expert"]


def test_an_expert_that_cannot_be_scored_is_refused_before_the_run(root: Path, tmp_path: Path) -> None:
    odd = shutil.copytree(root / "good", tmp_path / "odd")
    (odd / "tokenizer.json").unlink()
    weights = load_file(odd / "model.safetensors")
    name = "model.embed_tokens.weight"
    save_file(weights | {name: torch.cat([weights[name], weights[name][:3]])}, odd / "model.safetensors")
    models = {"experts": {"odd": str(odd)}}
    with pytest.raises(SelfdevError, match=rf"odd: {name} has \d+ rows, .* no tokenizer\.json"):
        run_config(settings(root, models=models), tmp_path / "run")


def test_api_run_reads_the_config_and_its_overrides(finished: tuple[Path, RunResult], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    assert api.run(copy / "config.yaml", copy) == finished[1]
    with pytest.raises(SelfdevError, match=r"pairs\.top"):
        api.run(copy / "config.yaml", copy, ["pairs.top=0.2"])
