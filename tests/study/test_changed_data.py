"""A study notices that the data of its trials have changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cv_lab.data.folder import ImageFolder
from cv_lab.data.layout import contents
from cv_lab.files import write_json
from cv_lab.study.read import read_study
from cv_lab.study.trials import group_by_setting
from tests.conftest import PLAIN
from tests.report.folders import make_trial

Train = Callable[..., Path]
TINY = ("data=folder", "data.image_size=8", "model=small_cnn", "model.width=4", "batch_size=4", "epochs=1", *PLAIN)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for number, name in enumerate(("blue", "red")):
        (root / name).mkdir(parents=True)
        for k in range(8):
            Image.new("RGB", (8 + k, 9), (200 * number, 0, 20 * k)).save(root / name / f"{k}.png")
    return root


def records(study: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(study.glob("*/trial.json"))]


def test_a_fingerprint_follows_names_sizes_and_labels(images: Path, tmp_path: Path) -> None:
    first = ImageFolder(str(images)).fingerprint()
    (images / ".DS_Store").write_text("of macOS")
    assert ImageFolder(str(images)).fingerprint() == first
    images.rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    (moved / "red/0.png").touch()
    assert ImageFolder(str(moved)).fingerprint() == first
    (moved / "red/0.png").rename(moved / "blue/10.png")
    assert ImageFolder(str(moved)).fingerprint() != first


def test_a_fingerprint_follows_what_tables_hold(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label\na.png,0\n")
    first = contents(tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text("file,label\na.png,1\n")  # of the same size
    assert contents(tmp_path / "labels.csv") != first


def test_a_completed_trial_of_other_data_is_not_taken_for_this_one(
    train: Train, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (*TINY, f"data.root={images}")
    study = train(*asked)
    train(*asked)
    assert "already completed" in capsys.readouterr().out
    assert len(records(study)) == 1
    (images / "red/0.png").rename(images / "blue/10.png")
    train(*asked)
    assert "the data have changed since" in capsys.readouterr().out
    assert [record["status"] for record in records(study)] == ["completed"] * 2
    assert len({record["setting"] for record in records(study)}) == 2
    assert len(group_by_setting(read_study(study).trials)) == 2
    assert {trial.parameters["data.fingerprint"] for trial in read_study(study).trials} == {
        record["config"]["data.fingerprint"] for record in records(study)
    }
    (images / "blue/10.png").rename(images / "red/0.png")
    train(*asked)
    assert "already completed" in capsys.readouterr().out
    assert len(records(study)) == 2


def test_a_study_runs_trials_anew_whose_data_have_changed(
    train: Train, images: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = ("-m", *TINY, f"data.root={images}")
    train(*asked)
    study = train(*asked)
    assert "0 to run" in capfd.readouterr().out
    (images / "red/0.png").rename(images / "blue/10.png")
    train(*asked)
    assert "1 to run" in capfd.readouterr().out
    assert len(records(study)) == 2


def test_an_interrupted_trial_on_changed_data_starts_anew(
    train: Train, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (*TINY, f"data.root={images}")
    study = train(*asked)
    (folder,) = (path.parent for path in study.glob("*/trial.json"))
    (folder / "result.json").unlink()
    write_json(folder / "trial.json", {**records(study)[0], "status": "interrupted"})
    (images / "red/0.png").rename(images / "blue/10.png")
    capsys.readouterr()
    train(*asked)
    told = capsys.readouterr().out
    assert "the data have changed since" in told
    assert "continued" not in told
    assert sorted(record["status"] for record in records(study)) == ["completed", "interrupted"]


def test_a_column_of_fingerprints_appears_only_where_nothing_else_says_the_same(tmp_path: Path) -> None:
    for name, parameters, fingerprint in (("a", {"data.root": "a"}, "1"), ("b", {"data.root": "b"}, "2")):
        folder = make_trial(tmp_path, name, parameters=parameters)
        record = json.loads((folder / "trial.json").read_text())
        write_json(folder / "trial.json", {**record, "config": {**parameters, "data.fingerprint": fingerprint}})
    assert all("data.fingerprint" not in trial.parameters for trial in read_study(tmp_path).trials)
    # The files of one have changed before a longer trial: the length alone does not say so.
    changed = make_trial(tmp_path, "c", parameters={"data.root": "b", "epochs": 9})
    record = json.loads((changed / "trial.json").read_text())
    config = {"data.root": "b", "epochs": 9, "data.fingerprint": "3"}
    write_json(changed / "trial.json", {**record, "config": config})
    assert {t.name: t.parameters["data.fingerprint"] for t in read_study(tmp_path).trials} == {
        "a": "1",
        "b": "2",
        "c": "3",
    }
