"""Grids whose worse trials pause early."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cv_lab.files import read_json, write_json
from cv_lab.study.halving import pending, rank_agreement, rungs, survivors
from cv_lab.study.plan import Job
from cv_lab.study.read import read_study, read_trial
from tests.conftest import PLAIN, TINY
from tests.report.folders import make_trial

Train = Callable[..., Path]
SMALL = (
    *(*TINY, *PLAIN, "model=small_cnn", "model._target_=tests.saboteur.DropoutNet", "model.width=8"),
    *("lr=1e-1,1e-5,1e-2", "epochs=4", "scheduler=cosine"),
)


def job(study: Path, number: int, values: list[float], setting: str | None = None, **trial: Any) -> Job:
    """A job whose trial has reached these values."""
    folder = make_trial(study, f"t{number}", None, values=values, **{"status": "paused", **trial})
    record = read_json(folder / "trial.json") | {"monitor": {"name": "val/accuracy", "mode": "max"}}
    write_json(folder / "trial.json", record)
    planned = SimpleNamespace(
        number=number,
        to_run=True,
        record=SimpleNamespace(folder=folder, fields={"setting": setting or f"setting {number}"}),
    )
    return cast(Job, planned)


def numbers(jobs: list[Job]) -> list[int]:
    return [job.number for job in jobs]


@pytest.mark.parametrize(
    ("epochs", "factor", "expected"), [(9, 3, [1, 3]), (27, 3, [3, 9]), (10, 3, [2, 4]), (4, 3, [1, 2]), (8, 2, [2, 4])]
)
def test_trials_pause_after_a_ninth_and_a_third(epochs: int, factor: int, expected: list[int]) -> None:
    assert rungs(epochs, factor) == expected


@pytest.mark.parametrize("trials", range(4, 40))
@pytest.mark.parametrize("epochs", [9, 15, 30])
def test_at_most_forty_per_cent_of_the_epochs_are_trained(trials: int, epochs: int) -> None:
    spent, done, running = 0, 0, trials
    for epoch in [*rungs(epochs, 3), epochs]:
        spent += running * (epoch - done)
        done, running = epoch, max(1, running // 3)
    assert spent <= 0.4 * trials * epochs


def test_the_best_third_goes_on_by_its_best_epoch_so_far(tmp_path: Path) -> None:
    jobs = [
        job(tmp_path, 0, [0.1, 0.2]),
        job(tmp_path, 1, [0.6, 0.3]),
        job(tmp_path, 2, [0.5, 0.5]),
        job(tmp_path, 3, [0.5, 0.9]),
        job(tmp_path, 4, [0.4, 0.4]),
        job(tmp_path, 5, [0.2, 0.2]),
    ]
    assert numbers(survivors(jobs, 1, 3)) == [1, 2]  # of equals the one of the lower number; later epochs do not count
    assert numbers(survivors(jobs, 2, 3)) == [1, 3]
    assert numbers(survivors(jobs[:2], 2, 3)) == [1]


def test_failed_diverged_and_lost_trials_are_the_worst(tmp_path: Path) -> None:
    jobs = [
        job(tmp_path, 0, [0.9, 0.9], status="failed"),
        job(tmp_path, 1, [float("nan")] * 2),
        job(tmp_path, 2, [0.9, 0.9]),
        job(tmp_path, 3, [0.1, 0.1]),
    ]
    (tmp_path / "t2" / "trial.json").write_text("")
    assert numbers(survivors(jobs, 2, 3)) == [3]


def test_the_seeds_of_a_setting_pause_together(tmp_path: Path) -> None:
    values = {0: 0.9, 1: 0.1, 2: 0.6, 3: 0.6, 4: 0.2, 5: 0.2}
    jobs = [job(tmp_path, number, [value], f"s{number // 2}") for number, value in values.items()]
    assert numbers(survivors(jobs, 1, 3)) == [2, 3]
    values = {0: 0.3, 1: 0.2, 2: 0.1, 3: 0.1, 4: 0.2, 5: 0.3}  # equal means, though not if summed in turn
    jobs = [job(tmp_path / "ties", number, [value], f"s{number // 3}") for number, value in values.items()]
    assert numbers(survivors(jobs, 1, 3)) == [0, 1, 2]


def test_only_trials_that_have_not_reached_the_rung_run(tmp_path: Path) -> None:
    jobs = [
        job(tmp_path, 0, [0.1]),
        job(tmp_path, 1, [0.1, 0.2]),
        job(tmp_path, 2, [0.1], status="failed"),
        job(tmp_path, 3, [0.1], status="completed"),
        job(tmp_path, 4, [0.1], status="interrupted"),
    ]
    assert numbers(pending(jobs, 2, first=True)) == [0, 2, 4]
    assert numbers(pending(jobs, 2, first=False)) == [0, 4]


def test_ranks_of_rungs_are_compared_by_kendalls_tau(tmp_path: Path) -> None:
    curves = [[0.1, 0.1, 0.2], [0.2, 0.2, 0.3], [0.3, 0.3, 0.1], [0.4, 0.4, 0.9], [0.9]]
    trials = [read_trial(job(tmp_path, number, values).record.folder, []) for number, values in enumerate(curves)]
    # By the best so far: 0.2, 0.3, 0.3, 0.9 after three epochs; five pairs in order, and one is tied later.
    assert rank_agreement(trials, 1) == (pytest.approx(5 / 30**0.5), 3, 4)  # scipy.stats.kendalltau gives 0.9129
    assert rank_agreement(trials[2:], 1) is None


def outcome(trial: Path) -> tuple[str, Any]:
    """What the trial learned, without times."""
    result = json.loads((trial / "result.json").read_text())
    return (trial / "metrics.csv").read_text(), [result[key] for key in ("weights_sha256", "metrics", "last")]


def test_survivors_and_trials_finished_later_equal_those_of_the_full_study(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    full = train("-m", *SMALL, "study=full").with_name("full")
    expected = {trial.parameters["lr"]: outcome(trial.folder) for trial in read_study(full).trials}
    study = train("-m", *SMALL, "halving=3")
    trials = {trial.parameters["lr"]: trial for trial in read_study(study).trials}
    (best,) = [rate for rate, trial in trials.items() if trial.status == "completed"]
    assert outcome(trials[best].folder) == expected[best]
    paused = [trial for trial in trials.values() if trial.status == "paused"]
    assert [len(trial.epochs) for trial in paused] == [1, 1]
    printed = capsys.readouterr().out
    assert "2 of 3 trials were paused early by halving, after 1 epoch" in printed
    assert "1 of 4 epochs so far" in (study / "report.md").read_text()
    train("-m", *SMALL, "halving=3")  # again: nothing is left to do
    assert [trial.status for trial in read_study(study).trials] == ["completed", "paused", "paused"]
    train("-m", *SMALL)
    assert {trial.parameters["lr"]: outcome(trial.folder) for trial in read_study(study).trials} == expected


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("halving=1",), "give at least 2"),
        (("halving=3", "epochs=1,2"), "give one value of epochs"),
        (("halving=3", "monitor=val/f1,val/loss"), "give one value of monitor"),
        (("hydra/sweeper=search", "monitor=val/f1,val/loss"), "give one value of monitor"),
        (("halving=3", "hydra.sweeper.max_batch_size=2"), "leave hydra.sweeper.max_batch_size out"),
        (("halving=3", "hydra/launcher=basic"), "needs hydra/launcher=processes"),
        (("pruner=median",), "give hydra/sweeper=search"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    train: Train, capsys: pytest.CaptureFixture[str], overrides: tuple[str, ...], words: str
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        train("-m", *SMALL, *overrides)
    assert exit_info.value.code == 1
    assert words in "".join(capsys.readouterr())
