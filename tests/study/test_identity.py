"""A trial is its identity: neither the text of its overrides nor the name of its folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cv_lab.config import defer_overrides
from cv_lab.study.identity import difference, flatten
from cv_lab.study.read import read_study
from cv_lab.study.trials import group_by_setting, varying_parameters
from tests.study.test_launcher import SMALL

Train = Callable[..., Path]


def records(study: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(study.glob("*/trial.json"))]


def write_experiment(folder: Path, name: str, content: str) -> str:
    """Write an experiment file; returns the option that lets Hydra find it."""
    path = folder / "mine/experiment" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# @package _global_\n{content}\n")
    return f"--config-dir={folder / 'mine'}"


def test_trials_whose_names_coincide_all_run_and_are_found_again(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("-m", *SMALL, "+data.note='a b','a-b'", "++data._target_=tests.saboteur.NotedShapes")
    study = train(*overrides)
    assert "2 trials in" in capsys.readouterr().out
    found = records(study)
    assert sorted(record["config"]["data.note"] for record in found) == ["a b", "a-b"]
    assert len({record["name"] for record in found}) == 2
    assert all(
        record["name"] == Path(path).parent.name
        for record, path in zip(found, sorted(study.glob("*/trial.json")), strict=True)
    )
    train(*overrides)
    assert capsys.readouterr().out.count("(already completed)") == 2


@pytest.mark.slow
def test_trials_that_differ_in_a_file_alone_are_two_settings(train: Train, tmp_path: Path) -> None:
    write_experiment(tmp_path, "narrow", "model:\n  width: 4")
    flag = write_experiment(tmp_path, "wide", "model:\n  width: 16")
    small = [override for override in SMALL if override != "model.width=8"]
    basic = ("-m", flag, "hydra/launcher=basic", *small)
    train(*basic, "experiment=narrow", "seed=1")
    study = train(*basic, "experiment=wide", "seed=2")
    trials = read_study(study).trials
    assert len(trials) == 2
    assert len(group_by_setting(trials)) == 2
    assert sorted(varying_parameters(trials)) == ["model.width", "seed"]
    assert {trial.parameters["model.width"] for trial in trials} == {4, 16}
    train("-m", flag, *small, "experiment=narrow,wide", "seed=1")  # of equal names
    assert len(records(study)) == 3


def test_one_trial_in_other_words_is_run_once(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    study = train(*SMALL, "lr=1e-2")
    train("-m", *SMALL, "lr=0.010,1e-3")
    printed = capsys.readouterr().out
    assert "2 trials in" in printed
    assert "1 to run" in printed
    train(*SMALL, "lr=1e-2", "optimizer=adam")  # which is the default
    assert "already completed" in capsys.readouterr().out
    assert sorted(record["parameters"]["lr"] for record in records(study)) == [1e-3, 1e-2]
    assert len([path for path in study.iterdir() if path.is_dir() and path.name != "figures"]) == 2


def test_copies_of_a_trial_are_not_seeds(train: Train) -> None:
    study = train(*SMALL)
    (folder,) = study.iterdir()
    (study / "COPY").mkdir()
    for name in ("trial.json", "result.json", "metrics.csv"):
        (study / "COPY" / name).write_bytes((folder / name).read_bytes())
    found = read_study(study)
    assert len(found.trials) == 1
    assert "it is the same trial as" in " ".join(found.notes)
    # A copy that was made while the trial ran is not taken for it.
    record = json.loads((folder / "trial.json").read_text())
    (study / "COPY" / "trial.json").write_text(json.dumps(record | {"status": "interrupted"}))
    (study / "COPY" / "result.json").unlink()
    train(*SMALL)
    assert json.loads((study / "COPY" / "trial.json").read_text())["attempts"] == []


@pytest.mark.slow
def test_a_new_key_of_the_config_leaves_completed_trials_as_they_are(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = write_experiment(tmp_path, "base", "lr: 1e-3")
    study = train("-m", flag, *SMALL, "experiment=base", "lr=1e-3")
    (before,) = (path.read_text() for path in study.glob("*/trial.json"))
    write_experiment(tmp_path, "base", "lr: 1e-3\ntrainer:\n  log_every_n_steps: 50")
    capsys.readouterr()
    train("-m", flag, *SMALL, "experiment=base", "lr=1e-3,1e-2")
    printed = capsys.readouterr().out
    assert "1 to run" in printed
    assert "of an earlier config: trainer.log_every_n_steps: (absent) -> 50" in printed
    assert before in {path.read_text() for path in study.glob("*/trial.json")}
    assert [record["status"] for record in records(study)] == ["completed"] * 2


def test_trials_under_other_versions_say_so(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    study = train("-m", "hydra/launcher=basic", *SMALL, "seed=1,2")
    path, other = sorted(study.glob("*/trial.json"))
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"versions": record["versions"] | {"torch": "2.0"}}))
    record = json.loads(other.read_text())
    other.write_text(json.dumps(record | {"versions": record["versions"] | {"timm": "0.9"}, "status": "interrupted"}))
    capsys.readouterr()
    train("-m", *SMALL, "seed=1,2")
    printed = capsys.readouterr().out
    assert "already completed, under other versions: torch: 2.0 -> " in printed
    assert "continued, under other versions: timm: 0.9 -> " in printed
    assert json.loads(other.read_text())["attempts"][0]["versions"]["timm"] == "0.9"


def test_leaves_and_their_differences_by_hand() -> None:
    left = flatten({"a": {"b": 1, "c": {}}, "d": [1, 2], "e": None})
    assert left == {"a.b": 1, "a.c": {}, "d": [1, 2], "e": None}
    assert difference(left, {"a.b": 2, "a.c": {}, "d": [1, 2]}) == "a.b: 1 -> 2; e: None -> (absent)"


def test_keys_of_swept_groups_are_left_to_the_trials() -> None:
    arguments = ["optimizer=sgd,adam", "optimizer.momentum=0.9", "+optimizer.x=1", "lr=0.1", "model.width=8"]
    expected = ["optimizer.momentum=choice(0.9)", "+optimizer.x=choice(1)"]
    assert defer_overrides(arguments) == [*arguments[:1], *expected, *arguments[3:]]
    alone = ["optimizer=sgd", "optimizer.momentum=0.9", "callbacks=[default,ema]", "callbacks.ema.decay=0.9"]
    assert defer_overrides(alone) == alone


def test_a_key_that_one_swept_option_lacks_is_explained(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train("-m", *SMALL, "optimizer=sgd,adam", "optimizer.momentum=choice(0.9)")
    assert "optimizer=adam has no momentum" in capsys.readouterr().out
