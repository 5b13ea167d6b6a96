"""A parameter without an effect is named, and none that has one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cv_lab.report.findings import findings
from cv_lab.report.sections import sections
from cv_lab.study.effects import without_effect
from cv_lab.study.read import read_study
from tests.conftest import PLAIN, TINY
from tests.report.folders import make_trial


def study(folder: Path, *trials: tuple[dict[str, Any], str, dict[str, Any]]) -> list[str]:
    """What is said of trials given as (parameters, hash of their weights, further fields)."""
    for number, (parameters, weights, more) in enumerate(trials):
        make_trial(folder, str(number), parameters=parameters, weights_sha256=weights, **more)
    return [case.text for case in without_effect(read_study(folder).trials)]


def test_a_parameter_without_effect_is_named(tmp_path: Path) -> None:
    said = study(tmp_path, ({"label_smoothing": 0.0}, "a", {}), ({"label_smoothing": 0.2}, "a", {}))
    assert said == ["label_smoothing had no effect: both trials are equal to the last bit."]
    (section,) = sections(read_study(tmp_path).trials, [])
    (finding,) = [finding for finding in findings(section) if finding.kind == "no effect"]
    assert finding.text == said[0]
    assert sorted(finding.trials) == ["0", "1"]


def test_two_parameters_are_both_named(tmp_path: Path) -> None:
    said = study(tmp_path, ({"a": 0, "b": 0}, "x", {}), ({"a": 1, "b": 1}, "x", {}), ({"a": 1, "b": 2}, "y", {}))
    assert said == ["a and b had no effect: both trials are equal to the last bit."]


def test_an_effect_elsewhere_is_not_denied(tmp_path: Path) -> None:
    said = study(
        tmp_path,
        *[({"loss": "dice", "label_smoothing": value}, "a", {}) for value in (0.0, 0.1, 0.2)],
        ({"loss": "focal", "label_smoothing": 0.0}, "b", {}),
        ({"loss": "focal", "label_smoothing": 0.1}, "c", {}),
    )
    assert said == ["label_smoothing had no effect: all 3 trials with loss=dice are equal to the last bit."]


def test_a_grid_is_told_in_one_sentence(tmp_path: Path) -> None:
    trials = [({"lr": lr, "x": x}, str(lr), {"best": 0.3 + lr}) for lr in (0.1, 0.01) for x in (1, 2)]
    assert study(tmp_path, *trials) == [
        "x had no effect: trials that differ in it alone, in 2 groups, are equal to the last bit."
    ]


def test_a_seed_without_effect_is_named(tmp_path: Path) -> None:
    said = study(tmp_path, ({"seed": 1}, "a", {}), ({"seed": 2}, "a", {}))
    assert said == ["seed had no effect: both trials are equal to the last bit."]


@pytest.mark.parametrize(
    ("weights", "more"),
    [
        ("b", {}),  # other weights
        ("a", {"metrics": {"test/knn_accuracy": 0.5}}),  # a parameter of the test alone
        ("a", {"val_loss": [1.0, 0.9, 0.8, 0.7, 0.6]}),  # of the validation
        ("a", {"last": {"epoch": 9, "train/loss": 0.1}}),  # more epochs, of which none was better
        ("a", {"best": None, "status": "failed", "error": {"type": "E", "message": "m", "traceback": ""}}),
        ("", {}),  # of a version that recorded no hash
    ],
)
def test_what_has_an_effect_is_not_named(tmp_path: Path, weights: str, more: dict[str, Any]) -> None:
    assert study(tmp_path, ({"x": 1}, "a", {}), ({"x": 2}, weights, more)) == []


def test_a_study_ends_with_the_warning(train: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:
    """Without decay there is nothing that norms could be spared from."""
    folder = train("-m", *TINY, *PLAIN, "model=small_cnn", "model.width=4", "optimizer.decay_norms=true,false")
    words = "optimizer.decay_norms had no effect: both trials are equal to the last bit."
    assert f"warning: {words}" in capfd.readouterr().out
    assert words in (folder / "report.html").read_text()
