"""``cv-lab data`` shows what lies in a folder, without training."""

import csv
import shutil
from pathlib import Path

import pytest

from cv_lab.trial.look import main
from tests.data.test_own import LAYOUTS, coco, folders


@pytest.mark.parametrize("name", ["classes", "CSV of several labels", "npz", "masks", "COCO"])
def test_data_of_each_task_are_shown(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, build, classes, counts, _ = LAYOUTS[name]
    build(tmp_path / "data") if name != "npz" else ((tmp_path / "data").mkdir(), build(tmp_path / "data"))
    main(
        [
            str(tmp_path / "data"),
            "--out",
            str(tmp_path / "out"),
            *(["--task", "multilabel"] if target == "labels" else []),
        ]
    )
    rows = list(csv.DictReader((tmp_path / "out/classes.csv").open()))
    assert tuple(row["class"] for row in rows) == classes
    if target == "label":
        assert [sum(int(row[s]) for row in rows) for s in ("train", "val", "test")] == list(counts)
    page = (tmp_path / "out/index.html").read_text()
    assert "data:image/png" in page
    assert all(f"<td>{name}</td>" in page for name in classes)


def test_copies_across_sets_damage_and_rare_classes_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders("train", "test", counts=(20, 2))(tmp_path)
    for number in range(2, 20):
        (tmp_path / f"train/owl/{number}.png").unlink()
    (tmp_path / "train/cat/99.png").write_bytes(b"no image")
    for path in (tmp_path / "test").rglob("*.png"):
        path.unlink()
    shutil.copy(tmp_path / "train/cat/7.png", tmp_path / "test/cat/copy.png")
    main([str(tmp_path), "--out", str(tmp_path / "out")])
    told = capsys.readouterr().out
    assert "Rare in the training set" in told
    assert "Not in the test set, so that nothing is known of them: dog, owl" in told
    rows = list(csv.DictReader((tmp_path / "out/dropped.csv").open()))
    (row,) = [row for row in rows if row["what"] == "dropped"]
    assert "99.png" in row["example"]
    pairs = list(csv.DictReader((tmp_path / "out/duplicates.csv").open()))
    copies = {row["one"] for row in pairs if row["other"].endswith("copy.png")}
    assert any(name.endswith("cat/7.png") for name in copies)


def test_what_is_not_recognised_ends_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SystemExit, match=r"error: .* holds 1 files \.txt"):
        main([str(tmp_path)])


def test_objects_are_taken_before_masks_painted_from_them(tmp_path: Path) -> None:
    coco("annotations.json", "images")(tmp_path / "data")
    main([str(tmp_path / "data"), "--out", str(tmp_path / "out")])
    assert [row["class"] for row in csv.DictReader((tmp_path / "out/classes.csv").open())] == ["cat", "dog"]
