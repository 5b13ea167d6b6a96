"""YOLO's labels: what is read, and what is told of what cannot be used."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cv_lab.data.yolo import Yolo


def make(
    root: Path, *labels: str | bytes | None, yaml: str = "train: images\nnames: [cat, dog]\n", **more: Any
) -> Yolo:
    for folder in ("images", "labels"):
        (root / folder).mkdir(exist_ok=True)
    for number, text in enumerate(labels):
        Image.new("RGB", (80, 60)).save(root / f"images/{number}.png")
        if text is not None:
            content = text if isinstance(text, bytes) else text.encode()
            (root / f"labels/{number}.txt").write_bytes(content)
    (root / "data.yaml").write_text(yaml)
    return Yolo(str(root), **{"image_size": [60, 80], "target": "boxes"} | more)


@pytest.mark.parametrize(
    "line",
    ["1 0.5 0.5 0.25 0.5", "1,0.5,0.5,0.25,0.5", "1 0,5 0,5 0,25 0,5", "1, 0.5, 0.5, 0.25, 0.5", "1 .5 .5 .25 .5 .9",
     b"\xef\xbb\xbf1 0.5 0.5 0.25 0.5\r\n", "1 0.5 0.5 0.25 0.5".encode("utf-16")],
)  # fmt: skip
def test_boxes_are_read_in_all_spellings(tmp_path: Path, line: str | bytes) -> None:
    (objects,) = make(tmp_path, line).load("train").objects
    assert objects.classes.tolist() == [1]
    assert objects.boxes.tolist() == [[30, 15, 20, 30]]


def test_polygons_have_masks_and_boxes(tmp_path: Path) -> None:
    line = "0 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5"
    for target in ("instances", "boxes"):
        (objects,) = make(tmp_path, line, target=target).load("train").objects
        assert objects.boxes.tolist() == [[20, 15, 20, 15]]
        assert objects.areas.tolist() == [300]


def test_what_cannot_be_used_is_dropped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [
        "0 .5 .5 .2 .2",
        "0 .5 .5 .2 .2",
        "2 .5 .5 .2 .2",
        "0 nan .5 .2 .2",
        "0 x",
        "0 40 30 9 9",
        "0 .1 .1",
        "0 .5 .5 0 .1",
    ]
    images = make(tmp_path, "\n".join(lines), "", None).load("train")
    assert [len(o.classes) for o in images.objects] == [1, 0, 0]
    for told in (
        "1 objects that are listed twice",
        "1 objects of unknown classes",
        "2 lines that are not numbers",
        "1 objects whose coordinates are not shares",
        "1 lines that are neither a box nor a polygon",
        "1 boxes of no area",
        "1 images have no file of objects",
    ):
        assert told in caplog.text


@pytest.mark.parametrize("train", ["images/train", "../images/train", "[images/train]"])
def test_splits_are_those_of_the_yaml_or_held_out(tmp_path: Path, train: str, caplog: pytest.LogCaptureFixture) -> None:
    for split, count in (("train", 20), ("val", 4)):
        for folder in ("images", "labels"):
            (tmp_path / folder / split).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8)).save(tmp_path / f"images/{split}/{split}{number}.png")
            (tmp_path / f"labels/{split}/{split}{number}.txt").write_text("3 .5 .5 .5 .5")
    data = make(tmp_path, yaml=f"path: nowhere\ntrain: {train}\nval: images/val\ntest:\nnames: {{3: cat}}\n")
    data.setup()
    assert data.train is not None
    assert (len(data.train), len(data.val), len(data.test)) == (17, 4, 3)
    assert "not there" not in caplog.text
    gone = make(tmp_path, yaml="train: images/train\nval: images/elsewhere\nnames: {3: cat}\n")
    assert gone.splits() == ("train",)
    assert "the val set that data.yaml names is not there and is held out" in caplog.text
    same = make(tmp_path, yaml="train: images/train\nval: images/train\nnames: {3: cat}\n")
    assert same.splits() == ("train",)


@pytest.mark.parametrize("names", ["3", "true", "{cat: 0}", "{1.5: cat}", "0", "[]", "cat"])
def test_names_that_are_none_are_refused(tmp_path: Path, names: str) -> None:
    with pytest.raises(ValueError, match=r"names (of|the) classes"):
        make(tmp_path, "0 0.5 0.5 0.2 0.2", yaml=f"train: images\nnames: {names}\n").names  # noqa: B018


def test_names_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"names the classes.*data\.names"):
        make(tmp_path, "", yaml="train: images\n").load("train")


def test_other_names_of_one_length_are_other_data(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "images/1.png")
    (tmp_path / "obj.names").write_text("cat\ncow\n")
    before = Yolo(str(tmp_path)).fingerprint()
    (tmp_path / "obj.names").write_text("cow\ncat\n")
    assert Yolo(str(tmp_path)).fingerprint() != before
