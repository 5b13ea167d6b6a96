"""Calibration, figures of each class, mistakes and disagreements of classifiers."""

from pathlib import Path

import numpy as np
import pytest

from cv_lab.files import read_json, write_json
from cv_lab.report import answers
from cv_lab.report.page import write_report
from cv_lab.report.sections import Section, sections
from cv_lab.study.read import read_study
from tests.report.folders import make_trial

TRUTH = [0, 0, 0, 1, 1, 2]
A = [0, 0, 1, 1, 0, 1]  # never answers the third class
B = [0, 1, 0, 1, 0, 1]


def study(folder: Path, **arrays: object) -> Section:
    """Two classifiers; `arrays` are added to the test of the first, which is the better one."""
    for name, best, predicted in (("a", 0.7, A), ("b", 0.5, B)):
        trial = make_trial(folder, name, best, parameters={"lr": best})
        result = read_json(trial / "result.json")
        accuracy = float(np.mean(np.array(predicted) == TRUTH))
        metrics = result["metrics"] | {"test/accuracy": accuracy}
        write_json(trial / "result.json", result | {"metrics": metrics, "classes": ["cat", "dog", "elk"]})
        more = arrays if name == "a" else {}
        np.savez(trial / "test.npz", truth=np.array(TRUTH), prediction=np.array(predicted), **more)  # type: ignore[arg-type]
    (section,) = sections(read_study(folder).trials, [])
    return section


def texts(table: answers.Table | None) -> list[list[str]]:
    assert table is not None
    return [[cell.text for cell in row] for row in table.rows]


def test_calibration_error_is_the_mean_gap_of_bins() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.6, 0.6])
    right = np.array([True, True, True, False, True, False])
    # Two bins: 4 images at 0.95 with 0.75 right, 2 at 0.6 with 0.5 right.
    assert answers.calibration_error(confidence, right) == pytest.approx(4 / 6 * 0.2 + 2 / 6 * 0.1)
    assert answers.calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0


def test_precision_recall_and_f1_are_those_of_the_counts(tmp_path: Path) -> None:
    # By scikit-learn's precision_recall_fscore_support, which gives 0 where elk is never predicted.
    assert texts(answers.class_table(study(tmp_path))) == [
        ["cat", "66.67 %", "66.67 %", "66.67 %", "3", "3"],
        ["dog", "33.33 %", "50.00 %", "40.00 %", "2", "3"],
        ["elk", "", "0.00 %", "0.00 %", "1", "0"],
    ]


def test_mistakes_are_named_by_their_files_the_surest_first(tmp_path: Path) -> None:
    section = study(
        tmp_path,
        p_prediction=np.array([0.9, 0.9, 0.5, 0.9, 0.7, 0.8]),
        p_truth=np.array([0.9, 0.9, 0.4, 0.9, 0.2, 0.1]),
        files=np.array([f"{i}<.png" for i in range(6)]),
    )
    assert texts(answers.mistakes_table(section)) == [
        ["5<.png", "elk", "dog", "80.00 %", "10.00 %"],
        ["4<.png", "dog", "cat", "70.00 %", "20.00 %"],
        ["2<.png", "cat", "dog", "50.00 %", "40.00 %"],
    ]
    assert write_report(tmp_path).notes == []
    assert "5&lt;.png" in (tmp_path / "report.html").read_text()
    assert "Calibration" in (tmp_path / "report.md").read_text()


def test_disagreements_of_two_settings_on_the_same_images(tmp_path: Path) -> None:
    table = answers.differences_table(study(tmp_path))
    assert texts(table) == [["number 2", "cat", "dog", "cat"], ["number 1", "cat", "cat", "dog"]]
    assert table is not None
    assert "both get 2 right, lr 0.7 alone 1, lr 0.5 alone 1, and neither 2." in table.caption


def test_other_images_are_not_compared(tmp_path: Path) -> None:
    assert answers.differences_table(study(tmp_path, files=np.array(list("abcdef")))) is None


@pytest.mark.parametrize("p", [np.full(6, np.nan), np.full(6, 1.5), np.full(5, 0.5)])
def test_damaged_probabilities_are_named(tmp_path: Path, p: np.ndarray) -> None:
    study(tmp_path, p_prediction=p)
    notes = write_report(tmp_path).notes
    assert [note for note in notes if "p_prediction holds no probabilities of 6 images" in note]


def test_without_probabilities_there_is_no_calibration(tmp_path: Path) -> None:
    section = study(tmp_path)
    assert answers.calibration(section) == []
    assert answers.mistakes_table(section) is None
