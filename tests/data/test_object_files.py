"""Formats with a file of objects for each image: boxes, classes and what is told of what cannot be used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cv_lab.data.labelme import Labelme
from cv_lab.data.numbered_masks import NumberedMasks
from cv_lab.data.own import OwnData
from cv_lab.data.voc_xml import VocXml


def photos(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 60)).save(root / name)


def xml(*objects: str, size: str = "<size><width>80</width><height>60</height></size>") -> str:
    return f"<annotation>{size}{''.join(f'<object>{one}</object>' for one in objects)}</annotation>"


def box(left: Any, top: Any, right: Any, bottom: Any, more: str = "") -> str:
    sides = f"<xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    return f"<name>cat</name>{more}<bndbox>{sides}</bndbox>"


def voc(root: Path, *files: str) -> VocXml:
    for number, content in enumerate(files):
        photos(root, f"JPEGImages/{number}.png")
        (root / "Annotations").mkdir(exist_ok=True)
        (root / f"Annotations/{number}.xml").write_text(content)
    return VocXml(str(root), image_size=[60, 80], target="boxes")


def test_pixels_of_pascal_voc_count_from_1_and_the_last_are_inside(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    truncated = "<truncated>1</truncated><difficult>0</difficult>"
    (objects,) = voc(tmp_path, xml(box(11, 21, 30, 40, part), box(1, 1, 80, 60, truncated))).load("train").objects
    assert objects.boxes.tolist() == [[10, 20, 20, 20], [0, 0, 80, 60]]
    assert objects.crowd.tolist() == [False, False]


def test_difficult_objects_are_not_learnt(tmp_path: Path) -> None:
    images = voc(tmp_path, xml(box(11, 21, 30, 40, "<difficult>1</difficult>"), box(1, 1, 9, 9))).load("train")
    assert images.objects[0].crowd.tolist() == [True, False]
    assert images.__getitems__([0])["classes"].tolist() == [[0]]


def test_what_cannot_be_used_of_xml_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = voc(
        tmp_path,
        xml(
            *(box(0, 0, 10, 10), box(1, 1, 9, "x"), "<name>cat</name>", box(9, 9, 3, 3), box("nan", 1, 9, 9)),
            *(box(90, 1, 99, 9), box(5, 5, 9, 9), box(5, 5, 9, 9)),
        ),
        xml(box(1, 1, 9, 9), size="<size><width>0</width><height>0</height></size>"),
        xml(box(1, 1, 9, 9), size="<size><width>40</width><height>60</height></size>"),
        "<annotation><object>",
    )
    photos(tmp_path, "JPEGImages/no.png")
    (tmp_path / "Annotations/lost.xml").write_text(xml())
    assert [o.boxes.tolist() for o in data.load("train").objects] == [[[0, 0, 10, 10], [4, 4, 5, 5]], [[0, 0, 9, 9]]]
    for told in (
        "3 objects without a class or a box",
        "1 boxes of no area",
        "1 boxes outside of their image",
        "1 objects that are listed twice",
        "1 images of another size than their annotations say",
        "1 damaged files of objects",
        "1 images without a file of objects",
        "1 files of objects without an image",
        "1 boxes begin before pixel 1",
    ):
        assert told in caplog.text
    data.strict = True
    with pytest.raises(ValueError, match=r"3 objects without a class or a box.*data\.strict=false"):
        data.load("train")


def test_files_of_one_name_belong_to_the_split_of_their_folder(tmp_path: Path) -> None:
    for split, side in (("train", 10), ("val", 20)):
        photos(tmp_path, f"images/{split}/1.png")
        (tmp_path / f"annotations/{split}").mkdir(parents=True)
        (tmp_path / f"annotations/{split}/1.xml").write_text(xml(box(1, 1, side, side)))
    data = VocXml(str(tmp_path), image_size=[60, 80])
    assert [data.load(split).objects[0].boxes.tolist() for split in data.splits()] == [
        [[0, 0, 10, 10]],
        [[0, 0, 20, 20]],
    ]
    (tmp_path / "images/train").rename(tmp_path / "images/a")
    with pytest.raises(ValueError, match=r"none of its 2 images.*"):
        VocXml(str(tmp_path / "images"), image_size=[60, 80]).load("train")
    (tmp_path / "annotations/val").rename(tmp_path / "annotations/b")
    with pytest.raises(ValueError, match=r"none of its 2 images.*several files of objects.*annotations/b/1\.xml"):
        VocXml(str(tmp_path), image_size=[60, 80]).load("train")


def shape(kind: str | None, *points: list[float], label: Any = "cat", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": list(points), **({"shape_type": kind} if kind else {}), **more}


def labelme(root: Path, *shapes: Any, **more: Any) -> Labelme:
    photos(root, "a/1.png")
    content = {"shapes": list(shapes), "imagePath": "..\\x.png", "imageHeight": 60, "imageWidth": 80, **more}
    (root / "a/1.json").write_text(json.dumps(content))
    return Labelme(str(root), image_size=[60, 80], target="instances")


def test_shapes_of_labelme(tmp_path: Path) -> None:
    triangle = shape(None, [10, 10], [20, 10], [20, 30], [10, 30], label=" dog")
    rectangle, circle = shape("rectangle", [30, 30], [10, 20]), shape("circle", [40, 30], [50, 30])
    images = labelme(tmp_path, triangle, rectangle, circle, shape("circle", [5, 5], [8, 5], label=7)).load("train")
    assert images.classes == ("7", "cat", "dog")
    (objects,) = images.objects
    assert objects.classes.tolist() == [2, 1, 1, 0]
    assert objects.boxes[:2].tolist() == [[10, 10, 10, 20], [10, 20, 20, 10]]
    assert objects.areas[2] == pytest.approx(100 * np.pi, rel=0.03)


def test_shapes_of_one_group_are_one_object(tmp_path: Path) -> None:
    parts = [shape("rectangle", [x, 10], [x + 10, 20], group_id=group) for x, group in ((0, 1), (30, 1), (60, 2))]
    (objects,) = labelme(tmp_path, *parts, shape("rectangle", [0, 30], [9, 39], group_id=None)).load("train").objects
    assert objects.areas.tolist() == [200, 100, 81]


def test_what_cannot_be_used_of_labelme_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    square = shape("rectangle", [1, 1], [9, 9])
    nameless = [shape("rectangle", [1, 1], [8, 8], label=label) for label in (None, " ", [])]
    data = labelme(tmp_path, square, square, shape("point", [1, 1]), shape("polygon", [1, 1], [2, 2]), *nameless)
    for number, content in enumerate(
        ('{"shapes"', '{"shapes": [{"label": "cat", "points": 7}]}', "[]", '{"shapes": 1}')
    ):
        photos(tmp_path, f"a/bad{number}.png")
        (tmp_path / f"a/bad{number}.json").write_text(content)
    assert [len(o.classes) for o in data.load("train").objects] == [1]
    for told in (
        "4 damaged files of objects",
        "1 shapes that are no polygon, rectangle or circle",
        "3 shapes without a label",
        "1 polygons with fewer than 3 points",
        "1 objects that are listed twice",
    ):
        assert told in caplog.text


def numbered(root: Path, *masks: Any, **options: Any) -> NumberedMasks:
    """Rows of a mask of 4 x 6 pixels, or a mask."""
    (root / "masks").mkdir()
    for number, rows in enumerate(masks):
        image = rows if isinstance(rows, Image.Image) else Image.fromarray(np.array(rows).repeat(6).reshape(4, 6))
        photos(root, f"images/{number}.png")
        Image.new("RGB", (6, 4)).save(root / f"images/{number}.png")
        image.save(root / f"masks/{number}.png")
    return NumberedMasks(str(root), image_size=[4, 6], **options)


@pytest.mark.parametrize(
    ("instances", "classes", "found", "tops"),
    [
        ("person", ("person",), [0, 0], [1, 3]),
        ({3: "dog", "1": "cat"}, ("cat", "dog"), [0, 1], [1, 3]),
        ({3: "dog"}, ("dog",), [0], [3]),
    ],
)
def test_each_number_of_a_mask_is_an_object(
    tmp_path: Path, instances: Any, classes: tuple[str, ...], found: list[int], tops: list[int]
) -> None:
    rows = np.array([0, 1, 255, 3], np.uint8)  # 255 is unlabelled
    images = numbered(tmp_path, rows, np.zeros(4, np.uint8), instances=instances).load("train")
    assert images.classes == classes
    assert [o.classes.tolist() for o in images.objects] == [found, []]
    assert images.objects[0].boxes.tolist() == [[0, top, 6, 1] for top in tops]


def test_numbers_of_cityscapes_hold_their_class(tmp_path: Path) -> None:
    rows = np.array([7, 24, 24001, 26000], np.uint16)
    (objects,) = numbered(tmp_path, rows, instances={26: "car", 24: "person"}).load("train").objects
    assert (objects.classes.tolist(), objects.crowd.tolist()) == ([0, 0, 1], [True, False, False])


def test_objects_of_pascal_voc_have_the_classes_of_its_other_masks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "VOC2012"
    rows = {"SegmentationObject": [1, 255, 2, 3], "SegmentationClass": [20, 255, 8, 0]}
    for folder, values in rows.items():
        (root / folder).mkdir(parents=True)
        mask = Image.fromarray(np.array(values, np.uint8).repeat(6).reshape(4, 6)).convert("P")
        for number in range(9):
            mask.save(root / folder / f"2007_{number}.png")
    for number in range(10):
        photos(root, f"JPEGImages/2007_{number}.jpg")
        Image.new("RGB", (6, 4)).save(root / f"JPEGImages/2007_{number}.jpg")
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(f"2007_{k}" for k in (0, 1, 2, 3, 4, 5, 6, 11)))
    (root / "ImageSets/Segmentation/val.txt").write_text("2007_8\n")
    data = OwnData(str(tmp_path), target="instances", image_size=(4, 6))
    data.setup()
    assert data.train is not None
    assert (data.classes[0], data.classes[19], len(data.classes)) == ("aeroplane", "tvmonitor", 20)
    assert (len(data.train), len(data.val), len(data.test)) == (6, 1, 1)
    for images in (data.train, data.val):
        assert [data.classes[k] for k in images.objects[0].classes] == ["tvmonitor", "cat"]
        assert images.objects[0].boxes.tolist() == [[0, 0, 6, 1], [0, 2, 6, 1]]
    assert "7 objects without a class in the mask of classes" in caplog.text
    assert "2007_11" in caplog.text
    assert OwnData(str(tmp_path), target="boxes", instances="thing").layout.options["root"] == str(root)


def test_what_does_not_number_objects_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8))
    binary, good = np.array([0, 255, 0, 0], np.uint8), np.array([0, 1, 0, 0], np.uint8)
    data = numbered(tmp_path, good, binary, colours, Image.new("L", (5, 5)))
    Image.new("RGB", (6, 4)).save(tmp_path / "images/lost.png")
    Image.new("L", (6, 4)).save(tmp_path / "masks/none.png")
    assert [len(o.classes) for o in data.load("train").objects] == [1]
    for told in (
        "1 masks of 0 and 255 alone, which do not number objects",
        "1 masks in colours",
        "1 images of another size than their annotations say",
        "1 images without a file of objects",
        "1 masks without an image",
    ):
        assert told in caplog.text


@pytest.mark.parametrize("instances", [{}, ["cat"], 3, {"cat": 1}, ""])
def test_other_instances_are_refused(tmp_path: Path, instances: Any) -> None:
    with pytest.raises(ValueError, match=r"data\.instances"):
        numbered(tmp_path, np.array([0, 1, 0, 0], np.uint8), instances=instances)


def test_the_class_of_numbered_objects_is_an_option_of_own_data(tmp_path: Path) -> None:
    numbered(tmp_path, *[np.array([0, 1, 2, 2], np.uint8)] * 8)
    data = OwnData(str(tmp_path), target="boxes", instances="nail", image_size=[4, 6], val_fraction=0.2)
    data.setup()
    assert data.train is not None
    assert (data.classes, data.train.class_counts().counts.tolist()) == (("nail",), [12])
    with pytest.raises(ValueError, match="in no layout known"):
        OwnData(str(tmp_path / "images"), target="boxes", instances="nail").setup()
