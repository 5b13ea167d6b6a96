"""A study read from Python."""

import sys
from pathlib import Path

import pytest

from cv_lab.files import write_csv
from cv_lab.study.read import Study, read_study
from tests.study.test_study import write_trial


@pytest.fixture
def study(tmp_path: Path) -> Study:
    for lr, accuracy in ((0.1, 0.5), (0.01, 0.75)):
        write_trial(tmp_path, {"lr": lr, "seed": 1}, accuracy, {"test/accuracy": accuracy - 0.25})
        folder = tmp_path / f"lr={lr},seed=1"
        write_csv(folder / "metrics.csv", [{"epoch": 1, "val/accuracy": 0.25}, {"epoch": 2, "val/accuracy": accuracy}])
    write_trial(tmp_path, {"lr": 1.0, "seed": 1}, None, status="failed")
    return read_study(str(tmp_path))


def test_trials_give_parameters_metrics_units_and_epochs(study: Study) -> None:
    best = study.trials[0]
    assert best.parameters == {"lr": 0.01, "seed": 1}
    assert best.metrics == {"train/loss": 1.0, "val/loss": 1.0, "val/accuracy": 0.75, "test/accuracy": 0.5}
    assert best.units["val/accuracy"] == {"unit": "share", "mode": "max"}
    assert (best.unit("val/accuracy"), best.unit("val/loss")) == ("share", "plain")
    assert best.epochs == [{"epoch": 1.0, "val/accuracy": 0.25}, {"epoch": 2.0, "val/accuracy": 0.75}]
    assert study.trials[-1].metrics == {}
    assert [trial.status for trial in study.trials] == ["completed", "completed", "failed"]


def test_a_study_is_a_table_for_pandas(study: Study) -> None:
    pytest.importorskip("pandas")
    table = study.to_pandas()
    assert list(table["lr"]) == [0.01, 0.1, 1.0]
    assert list(table["val/accuracy"])[:2] == [0.75, 0.5]
    assert table["val/accuracy"].isna().tolist() == [False, False, True]


def test_pandas_is_named_where_it_is_missing(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        study.to_pandas()
