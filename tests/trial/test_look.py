"""``cv-lab data`` shows what lies in a folder, without training."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cv_lab.trial.look import main
from tests.data.test_own import LAYOUTS, coco, folders, image

Rows = list[dict[str, str]]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows_of(name: str) -> Rows:
    with Path(f"data_report/{name}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["classes", "CSV of several labels", "npz", "masks", "COCO"])
def test_data_of_each_task_are_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    target, build, classes, counts, _ = LAYOUTS[name]
    Path("data").mkdir(exist_ok=name != "npz")
    build(Path("data"))
    main(["data", *(["--task", "multilabel"] if target == "labels" else [])])
    rows = rows_of("classes")
    assert tuple(row["class"] for row in rows) == classes
    if target == "label":
        assert [sum(int(row[s]) for row in rows) for s in ("train", "val", "test")] == list(counts)
    page = Path("data_report/index.html").read_text()
    assert "data:image/jpeg" in page
    assert all(f"{name}</td>" in page for name in classes)


def test_copies_across_sets_damage_and_rare_classes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    folders("train", "test", counts=(20, 2))(Path("data"))
    for number in range(2, 20):
        Path(f"data/train/owl/{number}.png").unlink()
    Path("data/train/cat/99.png").write_bytes(b"no image")
    for path in Path("data/test").rglob("*.png"):
        path.unlink()
    scene = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((80, 60))
    scene.save("data/train/cat/7.png")
    scene.resize((48, 36)).save("data/test/cat/copy.jpg")
    main(["data"])
    told = capsys.readouterr().out
    assert "Rare in the training set (a tenth of the most frequent class or less): owl. " in told
    assert "Not in the test set, so that nothing is known of them: dog and owl" in told
    (row,) = [row for row in rows_of("dropped") if row["what"] == "dropped"]
    assert "99.png" in row["example"]
    (pair,) = [row for row in rows_of("duplicates") if row["one"].endswith("cat/7.png")]
    assert pair["other"].endswith("copy.jpg")
    assert pair["sets"].endswith("/test")


def test_the_options_of_training_say_what_masks_mean(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("images", "masks"):
        Path("data", name).mkdir(parents=True)
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"data/images/{number}.jpg")
        Image.fromarray(pixels[..., 0] % 3 + 1).save(f"data/masks/{number}.png")
    with pytest.raises(SystemExit, match=r"the masks hold 1, 2, 3.* 'data.values=\{1: NAME, 2: NAME, 3: NAME\}'"):
        main(["data"])
    main(["data", "data.values={1: cat, 2: Void, 3: unlabelled}", "data.image_size=[30,40]"])
    told = capsys.readouterr().out
    assert "pixels of" in told
    shares = [float(line.split()[1]) for line in told.splitlines() if line.startswith(("cat  ", "Void  "))]
    assert sum(shares) == pytest.approx(100, abs=0.02)
    assert "Void is learnt and judged like any other class" in told
    assert "sizes of images, width x height: smallest 40 x 30, median 40 x 30, largest 40 x 30 pixels" in told
    assert [row["class"] for row in rows_of("classes")] == ["cat", "Void"]


def test_what_is_not_recognised_ends_with_its_reason() -> None:
    Path("data").mkdir()
    Path("data/notes.txt").write_text("x")
    with pytest.raises(SystemExit, match=r"error: data holds 1 files \.txt, in no layout known"):
        main(["data"])
    with pytest.raises(SystemExit, match="error: there is no elsewhere"):
        main(["elsewhere"])
    with pytest.raises(SystemExit, match="has no files to look at"):
        main(["data", "task=classification", "data=shapes"])


def test_a_page_of_something_else_is_kept() -> None:
    folders("train", "test", counts=(4, 2))(Path("data"))
    Path("data_report").mkdir()
    Path("data_report/index.html").write_text("mine")
    with pytest.raises(SystemExit, match="give another folder with --out"):
        main(["data"])
    assert Path("data_report/index.html").read_text() == "mine"


def test_objects_are_taken_before_masks_painted_from_them(capsys: pytest.CaptureFixture[str]) -> None:
    coco("annotations.json", "images")(Path("data"))
    main(["data"])
    assert [row["class"] for row in rows_of("classes")] == ["cat", "dog"]
    assert "areas of training objects: smallest " in capsys.readouterr().out
    page = Path("data_report/index.html").read_text()
    assert page.index("Smallest objects") < page.index("Largest objects")


def test_one_class_alone_is_told_as_training_would(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        image(Path(f"data/{number}.png"), number)
    Path("data/labels.csv").write_text("\n".join(["file,label", *(f"{number}.png,cat" for number in range(8))]))
    main(["data"])
    assert "Training refuses these data: there is nothing to tell apart: of cat" in capsys.readouterr().out
