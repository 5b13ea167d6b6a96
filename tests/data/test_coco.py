"""Data sets in COCO's format: what is read, and what is told of what cannot be used."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from cv_lab.data.augment import Augmentation, RandomHorizontalFlip, RandomResizedCrop
from cv_lab.data.coco import Coco
from cv_lab.data.instances import by_id
from cv_lab.tasks.instance_segmentation import targets_of
from tests.conftest import need

SQUARE = [10.0, 20.0, 30.0, 20.0, 30.0, 40.0, 10.0, 40.0]
Change = Any


def annotation(id: int, image: int = 1, category: int = 7, **changes: Any) -> dict[str, Any]:
    base = {"segmentation": [SQUARE], "bbox": [10, 20, 20, 20], "area": 400, "iscrowd": 0}
    return {"id": id, "image_id": image, "category_id": category} | base | changes


def write(folder: Path, annotations: list[dict[str, Any]], images: int = 3, **changes: Any) -> Coco:
    """Images 1, 2, ... of 80 x 60 pixels, the same for training and test, and a data module of 40 x 40 pixels."""
    content = {
        "images": [{"id": i + 1, "file_name": f"{i + 1}.png", "height": 60, "width": 80} for i in range(images)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "bird"}],
        "annotations": annotations,
    } | changes.pop("content", {})
    (folder / "images").mkdir(exist_ok=True)
    for i in range(images):
        Image.new("RGB", (80, 60), (0, 40 * i, 0)).save(folder / "images" / f"{i + 1}.png")
    (folder / "a.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    where = (str(folder / "images"), str(folder / "a.json"))
    return Coco(*where, *where, image_size=[40, 40], **changes)


def test_images_and_objects_are_scaled_and_truth_is_not(tmp_path: Path) -> None:
    crowd = rle.encode(np.asfortranarray(np.ones((60, 80), np.uint8)))
    crowd["counts"] = crowd["counts"].decode()
    images = write(tmp_path, [annotation(1), annotation(2, image=3, category=3, segmentation=crowd, iscrowd=1)]).load(
        "train"
    )
    assert images.classes == ("bird", "cat")  # by id
    batch = images.__getitems__([0, 1, 2])
    assert batch["id"] == [1, 2, 3]
    assert batch["classes"].tolist() == [[1], [-1], [-1]]  # crowds are not learnt from
    # 80 x 60 pixels become 40 x 30, and a square from (10, 20) to (30, 40) one from (5, 10) to (15, 20).
    assert torch.nonzero(batch["masks"][0, 0]).tolist() == [[y, x] for y in range(10, 20) for x in range(5, 15)]
    (first, empty, second) = batch["objects"]
    assert (first.size, first.scale, first.boxes.tolist()) == ((60, 80), (0.5, 0.5), [[10, 20, 20, 20]])
    assert rle.area(first.truth).tolist() == [400]
    assert len(empty.classes) == 0
    assert second.crowd.tolist() == [True]
    assert [part.tolist() for part in images.class_counts()] == [[0, 1], [0, 1]]


def test_boxes_follow_masks_through_augmentation(tmp_path: Path) -> None:
    batch = write(tmp_path, [annotation(1)]).load("train").__getitems__([0, 1])
    torch.manual_seed(0)
    flipped = targets_of(Augmentation(flip=RandomHorizontalFlip(p=1.0))(batch))
    assert flipped[0]["boxes"].tolist() == [[25, 10, 35, 20]]
    assert flipped[0]["labels"].tolist() == [1]
    assert flipped[1]["boxes"].shape == (0, 4)
    for _ in range(20):
        moved = RandomResizedCrop(scale=(0.2, 1.5))(batch)
        (target, _) = targets_of(moved)
        if len(target["boxes"]) == 0:
            assert not moved["masks"][0].any()
            continue
        left, top, right, bottom = target["boxes"][0].int().tolist()
        assert target["masks"][0, top:bottom, left:right].sum() == target["masks"].sum() > 0
        assert target["masks"][0, top:bottom, left].any()
        assert target["masks"][0, bottom - 1, left:right].any()


def test_a_subset_is_seeded_and_by_count(tmp_path: Path) -> None:
    def names(seed: int) -> list[Any]:
        return [o.id for o in write(tmp_path, [], images=12, train_images=5, seed=seed).load("train").objects]

    assert len(names(1)) == 5
    assert names(1) == names(1)
    assert names(1) != names(2)


def test_categories_are_chosen_by_name_or_by_number(tmp_path: Path) -> None:
    some = [annotation(1), annotation(2), annotation(3, category=3)]
    assert write(tmp_path, some, classes=1).load("train").classes == ("cat",)
    only = write(tmp_path, some, classes=["bird"]).load("train")
    assert [o.classes.tolist() for o in only.objects] == [[0], [], []]
    assert write(tmp_path, some, classes="bird").load("train").classes == ("bird",)
    with pytest.raises(ValueError, match="dog"):
        write(tmp_path, some, classes=["dog"]).load("train")
    for none in ([], 0):
        with pytest.raises(ValueError, match="takes no category"):
            write(tmp_path, some, classes=none).load("train")
    with pytest.raises(ValueError, match="must be a list of names"):
        write(tmp_path, some, classes=True).load("train")


def test_images_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    assert [o.id for o in write(tmp_path, [], images=12).load("train").objects] == list(range(1, 13))
    assert sorted(["b", 10, "a", 9], key=by_id) == [9, 10, "a", "b"]


@pytest.mark.parametrize(("annotations", "told"), [([], "train"), ([annotation(1, image=1)], "(train|validate)")])
def test_splits_without_an_object_are_refused(tmp_path: Path, annotations: list[dict[str, Any]], told: str) -> None:
    data = write(tmp_path, annotations, images=8, validation="split", val_fraction=0.25)
    with pytest.raises(ValueError, match=rf"none of the \d images to {told} on holds an object of bird and cat"):
        data.setup()


def test_an_image_may_hold_hundreds_of_objects(tmp_path: Path) -> None:
    squares = [[[x, y, x + 20, y, x + 20, y + 20, x, y + 20]] for x in range(30) for y in range(10)]
    many = [annotation(i, segmentation=square, bbox=None) for i, square in enumerate(squares)]
    del many[0]["area"]
    (first, *_) = write(tmp_path, many).load("train").objects
    assert first.areas.tolist() == [400] * 300


WRONG_RLE = {"size": [10, 10], "counts": [0, 100]}
DROPPED: list[tuple[dict[str, Any], str]] = [
    ({"image_id": 99}, "1 annotations of unknown images (annotation 5: image 99)"),
    ({"category_id": 99}, "1 annotations of unknown categories (annotation 5: category 99)"),
    ({"segmentation": [[1, 1, 2, 2]]}, "1 polygons with fewer than 3 points (annotation 5)"),
    ({"segmentation": None}, "1 objects without a mask (annotation 5)"),
    ({"segmentation": []}, "1 objects without a mask (annotation 5)"),
    ({"segmentation": [[float("nan")] * 8]}, "1 polygons with coordinates far outside of their image (annotation 5)"),
    ({"segmentation": [[1e10] * 8]}, "1 polygons with coordinates far outside of their image (annotation 5)"),
    ({"segmentation": [[90, 70, 95, 70, 95, 75]]}, "1 objects that cover no pixel of their image (annotation 5)"),
    ({"segmentation": [["a"] * 6]}, "1 masks that cannot be read (annotation 5: could not convert"),
    ({"segmentation": {"size": [60, 80], "counts": [5, 5]}}, "1 masks that cannot be read (annotation 5: its run"),
    ({"segmentation": {"size": [60, 80], "counts": "b'x'"}}, "1 masks that cannot be read (annotation 5: "),
    ({"segmentation": {"size": [60, 80]}}, "1 masks that cannot be read (annotation 5: "),
    ({"segmentation": WRONG_RLE}, "1 run-length masks of another size than their image (annotation 5: [10, 10])"),
]


@pytest.mark.parametrize(("change", "told"), DROPPED, ids=[told[2:20] for _, told in DROPPED])
def test_bad_annotations_are_dropped_with_a_count_or_refused(
    tmp_path: Path, change: dict[str, Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    annotations = [annotation(1), annotation(5, image=2) | change]
    with caplog.at_level(logging.WARNING):
        images = write(tmp_path, annotations).load("train")
    assert told in caplog.text
    assert [len(o.classes) for o in images.objects] == [1, 0, 0]
    with pytest.raises(ValueError, match=r"data\.strict=false") as error:
        write(tmp_path, annotations, strict=True).load("train")
    assert told in str(error.value)


def test_bad_images_are_dropped_with_a_count_or_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write(tmp_path, [annotation(1)], images=4)
    (tmp_path / "images/2.png").unlink()
    (tmp_path / "images/3.png").write_bytes(b"no image")
    Image.new("RGB", (10, 10)).save(tmp_path / "images/4.png")
    with caplog.at_level(logging.WARNING):
        assert [o.id for o in data.load("train").objects] == [1]
    for told in (
        "missing image files (",
        "damaged image files (",
        "images of another size than their annotations say (",
    ):
        assert f"1 {told}" in caplog.text
    data.strict = True
    with pytest.raises(ValueError, match=r"2\.png"):
        data.load("train")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"categories": None}, "no categories"),
        ({"annotations": None}, "no annotations"),
        ({"images": []}, "is empty"),
        ({"categories": []}, "is empty"),
        ({"images": [{"id": 1}]}, r"images\[0\] has no file_name"),
        ({"images": 3}, "no images"),
    ],
)
def test_other_formats_are_refused(tmp_path: Path, content: dict[str, Any], told: str) -> None:
    annotations = [] if "images" in content else [annotation(1)]
    with pytest.raises(ValueError, match=told):
        write(tmp_path, annotations, content={"annotations": annotations} | content).load("train")


def test_a_missing_or_broken_json_is_told(tmp_path: Path) -> None:
    data = write(tmp_path, [])
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        data.load("train")
    (tmp_path / "a.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.json"):
        data.load("train")


def test_images_that_cannot_be_used_at_all_are_refused(tmp_path: Path) -> None:
    data = write(tmp_path, [])
    for file in (tmp_path / "images").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="none of its 3 images"):
        data.load("train")


def test_real_annotations_are_read_whole() -> None:
    root = need("coco/annotations/instances_val2017.json") / "coco"
    where = (str(root / "val2017"), str(root / "annotations/instances_val2017.json"))
    images = Coco(*where, *where, test_images=6, image_size=[64, 64]).load("test")
    assert len(images) == 6
    assert len(images.classes) == 80
    for objects in images.objects:
        assert np.allclose(rle.toBbox(list(objects.truth)), objects.boxes, atol=3)  # pixels


def edited(folder: Path, change: Any, **options: Any) -> Coco:
    """A data module whose test json is the training json after `change`."""
    write(folder, [annotation(1), annotation(2, image=2, category=3)])
    content = json.loads((folder / "a.json").read_text())
    change(content)
    (folder / "b.json").write_text(json.dumps(content))
    images = str(folder / "images")
    return Coco(images, str(folder / "a.json"), images, str(folder / "b.json"), image_size=[60, 80], **options)


@pytest.mark.parametrize("target", ["instances", "mask"])
def test_classes_of_the_test_set_are_matched_by_name(tmp_path: Path, target: str) -> None:
    def swap_ids(content: dict[str, Any]) -> None:
        for record in content["categories"]:
            record["id"] = {7: 3, 3: 7}[record["id"]]
        for record in content["annotations"]:
            record["category_id"] = str({7: 3, 3: 7}[record["category_id"]])

    data = edited(tmp_path, swap_ids, target=target)
    train, test = data.load("train"), data.load("test")
    assert train.classes == test.classes
    assert train.class_counts().counts.tolist() == test.class_counts().counts.tolist()


@pytest.mark.parametrize("target", ["instances", "mask"])
def test_categories_of_one_json_alone_are_counted(
    tmp_path: Path, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["categories"][0]["name"] = "dog"

    test = edited(tmp_path, rename, target=target).load("test")
    assert "1 annotations of categories that the training set lacks (annotation 1: dog)" in caplog.text
    assert test.class_counts().counts[-1] == 0  # there is no cat


def test_categories_of_one_name_are_one_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As in exports of Roboflow, whose category 0 has the project's name."""
    more = {"categories": [{"id": 0, "name": "cat"}, {"id": 7, "name": "cat"}, {"id": 3, "name": 5}]}
    images = write(tmp_path, [annotation(1), annotation(2, category=3)], content=more).load("train")
    assert images.classes == ("cat", "5")
    assert images.objects[0].classes.tolist() == [0, 1]
    assert "1 categories have the name of another" in caplog.text


def test_what_is_listed_twice_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The image 1 stands in the json as 1 (twice) and 4, its objects with both, one as run lengths."""
    square = np.zeros((60, 80), np.uint8, order="F")
    square[20:40, 10:30] = 1
    again = {**rle.encode(square), "size": [60, 80]}
    again["counts"] = again["counts"].decode()
    records = [{"id": k, "file_name": f"{k}.png", "height": 60, "width": 80} for k in (1, 1, 2, 3)]
    records.append({"id": 4, "file_name": "./1.png"})
    some = [annotation(1), annotation(2, segmentation=again), annotation(3, image=4), annotation(4, category=3)]
    some.append(annotation(5, image=4, segmentation=[[1, 1, 9, 1, 9, 9]]))
    images = write(tmp_path, some, content={"images": records}).load("train")
    assert [o.id for o in images.objects] == [1, 2, 3]
    assert images.objects[0].classes.tolist() == [1, 0, 1]  # a cat, a bird in the same place, and another cat
    for told in (
        "1 images that are listed twice (1.png: 1)",
        "1 images whose file is listed already, as which their objects count",
        "2 objects that are listed twice (annotation 2 and annotation 3)",
    ):
        assert told in caplog.text


def test_boxes_that_are_listed_twice_count_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    some = [annotation(n, segmentation=None, bbox=[10, 20, 30 + n // 3, 20]) for n in (1, 2, 3)]
    images = write(tmp_path, some, target="boxes").load("train")
    assert images.objects[0].boxes.tolist() == [[10, 20, 30, 20], [10, 20, 31, 20]]
    assert "1 objects that are listed twice (annotation 2)" in caplog.text


def test_two_files_of_one_id_are_dropped_since_their_objects_cannot_be_told_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = [{"id": min(k, 2), "file_name": f"{k}.png"} for k in (1, 2, 3)]
    images = write(tmp_path, [annotation(1), annotation(2, image=2)], content={"images": records}).load("train")
    assert [o.id for o in images.objects] == [1]
    assert "2 images whose id another image has (3.png: 2 and 2.png: 2)" in caplog.text
    assert "1 annotations of unknown images (annotation 2: image 2)" in caplog.text


@pytest.mark.parametrize("used", [False, True])
def test_the_placeholder_of_roboflow_is_no_class(tmp_path: Path, used: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Its exports begin with a category of the project's name, which no object has."""
    categories = [
        {"id": 0, "name": "cat", "supercategory": "none"},
        {"id": 7, "name": "cat ", "supercategory": "cat"},
        {"id": 3, "name": "bird", "supercategory": "cat"},
    ]
    some = [annotation(1), *([annotation(2, category=0, segmentation=[[1, 1, 9, 1, 9, 9]])] if used else [])]
    images = write(tmp_path, some, content={"categories": categories}).load("train")
    assert images.classes == (("cat", "bird") if used else ("bird", "cat"))
    assert images.class_counts().counts.sum() == len(some)
    assert ("1 categories are placeholders of no object" in caplog.text) != used
    assert ("1 categories have the name of another" in caplog.text) == used


@pytest.mark.parametrize("target", ["instances", "mask"])
@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        ([], ""),
        ([annotation(1, iscrowd=1)], ""),
        ([annotation(1, segmentation=[])], "1 objects without a mask"),
        ([annotation(1, category="9")], "1 annotations of unknown categories"),
    ],
)
def test_training_on_nothing_is_refused(
    tmp_path: Path, target: str, annotations: list[dict[str, Any]], reason: str
) -> None:
    data = write(tmp_path, annotations, target=target, validation="test")
    with pytest.raises(ValueError, match=f"holds an object of bird and cat.*{reason}.*Crowds"):
        data.setup()


@pytest.mark.parametrize("target", ["instances", "mask"])
def test_another_size_than_the_json_says_is_dropped(
    tmp_path: Path, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    def halve(content: dict[str, Any]) -> None:
        content["images"][0] |= {"width": 40, "height": 30}

    assert len(edited(tmp_path, halve, target=target).load("test")) == 2
    assert "1 images of another size than their annotations say" in caplog.text
    assert "80 x 60, not 40 x 30" in caplog.text


@pytest.mark.parametrize("target", ["instances", "mask"])
@pytest.mark.parametrize("size", ["upright", "stored", "missing", "text"])
def test_objects_cover_what_they_were_drawn_on(tmp_path: Path, target: str, size: str) -> None:
    """A phone photograph: upright it has 60 x 80 pixels, of which the object is white."""
    pixels = np.zeros((80, 60, 3), np.uint8)
    pixels[10:30, 20:40] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    data = write(tmp_path, [], images=1, target=target)
    Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "images/1.png", exif=exif)
    content = json.loads((tmp_path / "a.json").read_text())
    record = {"id": 1, "file_name": "1.png", "width": 60, "height": 80}
    polygon = [20, 10, 40, 10, 40, 30, 20, 30]
    if size == "stored":  # x becomes the row from below
        record |= {"width": 80, "height": 60}
        polygon = [10, 20, 30, 20, 30, 40, 10, 40]
    elif size == "missing":
        record = {"id": "1", "file_name": "1.png", "width": 0}
    elif size == "text":
        record |= {"width": "60", "height": "80"}
    box = [min(polygon[::2]), min(polygon[1::2]), 20, 20]
    content |= {"images": [record], "annotations": [annotation(1, segmentation=[polygon], bbox=box)]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    data.image_size = (80, 60)
    images = data.load("train")
    mask = images.masks[0] == 2 if target == "mask" else images.__getitems__([0])["masks"][0, 0] == 1
    assert torch.equal(mask, images.images[0][0] > 127)
    if target == "instances":
        (objects,) = images.objects
        assert objects.size == (80, 60)
        assert objects.boxes.tolist() == [[20, 10, 20, 20]]


@pytest.mark.parametrize("box", [[20, 30, 20, 20], [10, 20, 30, 40], [0, 0, 0, 0], [], None, "x", [10, 20, 1, 0]])
def test_boxes_that_do_not_fit_are_taken_from_masks(tmp_path: Path, box: Any, caplog: pytest.LogCaptureFixture) -> None:
    (objects, *_) = write(tmp_path, [annotation(1, bbox=box)]).load("train").objects
    assert objects.boxes.tolist() == [[10, 20, 20, 20]]
    assert ("1 boxes do not fit their masks" in caplog.text) == (box is not None)


def test_published_boxes_are_kept(tmp_path: Path) -> None:
    (objects, *_) = write(tmp_path, [annotation(1, bbox=[9.5, 20.3, 21, 19.6])]).load("train").objects
    assert objects.boxes.tolist() == [[9.5, 20.3, 21, 19.6]]


@pytest.mark.parametrize(
    "shape",
    [
        SQUARE,
        [[[10, 20], [30, 20], [30, 40], [10, 40]]],
        [[10, 20], [30, 20], [30, 40], [10, 40]],
        [[str(number) for number in SQUARE]],
        [SQUARE, [1, 1]],
    ],
)
def test_polygons_in_other_forms_are_read(tmp_path: Path, shape: Any) -> None:
    sloppy = annotation(1, segmentation=shape, area=None, iscrowd=None)
    (objects, *_) = write(tmp_path, [sloppy]).load("train").objects
    assert objects.areas.tolist() == [400]
    assert rle.area(list(objects.truth)).tolist() == [400]


@pytest.mark.parametrize("name", ["\0", "x" * 5000, "/nowhere/2.png", 7])
def test_names_that_no_file_has_are_missing(
    tmp_path: Path, name: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    images = [{"id": n, "file_name": name if n else "1.png", "height": 60, "width": 80} for n in range(2)]
    write(tmp_path, [], images=1, content={"images": images})
    monkeypatch.chdir(tmp_path)
    assert len(Coco("images", "a.json", "images", "a.json").load("train")) == 1
    assert "1 missing image files" in caplog.text


@pytest.mark.parametrize(
    "name", ["images\\1.png", "C:\\me\\1.png", "some%20folder/1.png", "1.PNG", "1", "/elsewhere/1.png"]
)
def test_files_are_found_by_the_names_that_tools_write(tmp_path: Path, name: str) -> None:
    images = [{"id": 1, "file_name": name, "height": 60, "width": 80}]
    data = write(tmp_path, [annotation(1)], images=1, content={"images": images})
    assert [len(o.classes) for o in data.load("train").objects] == [1]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_any_unicode_is_read(tmp_path: Path, encoding: str) -> None:
    data = write(tmp_path, [annotation(1)])
    path = tmp_path / "a.json"
    path.write_text(path.read_text(), encoding=encoding)
    assert data.load("train").classes == ("bird", "cat")


@pytest.mark.parametrize("layout", ["one json", "valid.json", "roboflow"])
def test_other_sets_of_files_are_divided(tmp_path: Path, layout: str) -> None:
    write(tmp_path, [annotation(n, image=n) for n in range(1, 13)], images=12)
    (tmp_path / "images").rename(tmp_path / "train")
    (tmp_path / "a.json").rename(tmp_path / "train.json")
    if layout != "one json":
        shutil.copytree(tmp_path / "train", tmp_path / "valid")
        shutil.copy(tmp_path / "train.json", tmp_path / "valid.json")
    if layout == "roboflow":
        for name in ("train", "valid"):
            (tmp_path / f"{name}.json").rename(tmp_path / name / "_annotations.coco.json")
    where = (str(tmp_path / "train"), str(tmp_path / "train.json"))
    data = Coco(*where, None, None, image_size=[40, 40], val_fraction=0.2)
    data.setup()
    assert data.train is not None
    assert (len(data.train), len(data.val), len(data.test)) == ((8, 2, 2) if layout == "one json" else (10, 12, 2))


def test_boxes_without_masks_are_learnt_by_a_detector_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    some = [
        annotation(1, segmentation=[], area=None, bbox=[10.5, 20, 20, 20]),
        annotation(2, image=2),
        annotation(3, image=2, segmentation=None, bbox=[70, 50, 40, 40]),
        annotation(4, image=3, segmentation=[], bbox=[float("nan"), 1, 2, 2]),
        annotation(5, image=3, segmentation=[], bbox=[90, 1, 2, 2]),
        annotation(6, image=3, segmentation=[], bbox=None),
    ]
    images = write(tmp_path, some, target="boxes").load("train")
    assert [o.boxes.tolist() for o in images.objects] == [
        [[10.5, 20, 20, 20]],
        [[10, 20, 20, 20], [70, 50, 10, 10]],
        [],
    ]
    assert images.objects[0].areas.tolist() == [400]
    learnt = targets_of(images.__getitems__([0, 1, 2]))  # at half the size
    assert [one["boxes"].tolist() for one in learnt] == [[[5, 10, 15, 20]], [[5, 10, 15, 20], [35, 25, 40, 30]], []]
    for told in ("1 boxes of no area", "1 boxes outside of their image", "1 objects without a mask or a box"):
        assert told in caplog.text
    with pytest.raises(ValueError, match=r"model\.masks=false"):
        write(tmp_path, [annotation(1, segmentation=[])], validation="test").setup()


def test_objects_of_a_missing_image_are_not_drawn_on_another_of_its_last_name(tmp_path: Path) -> None:
    """cam2/1.png is listed first and missing; cam1/1.png is there."""
    records = [{"id": 1, "file_name": "cam2/1.png"}, {"id": 2, "file_name": "cam1/1.png"}]
    data = write(tmp_path, [annotation(1), annotation(2, 2, 3)], content={"images": records})
    (tmp_path / "images/cam1").mkdir()
    (tmp_path / "images/1.png").rename(tmp_path / "images/cam1/1.png")
    images = data.load("train")
    assert [(o.id, o.classes.tolist()) for o in images.objects] == [(2, [0])]
    assert data.problems[0]["kind"] == "images of whose name there is only the file of another"


@pytest.mark.parametrize("name", ["Background", "_background_"])  # as labelme has it
def test_a_category_called_background_is_background(name: str, tmp_path: Path) -> None:
    """A square of 20 x 20 cats, 10 x 10 of which are background in front of them, at half of that size."""
    front = [[10, 20, 20, 20, 20, 30, 10, 30]]
    categories = [{"id": 7, "name": "cat"}, {"id": 3, "name": name}]
    some = [annotation(1), annotation(2, category=3, segmentation=front, bbox=[10, 20, 10, 10], area=100)]
    images = write(tmp_path, some, 1, content={"categories": categories}, target="mask").load("train")
    assert images.classes == ("background", "cat")
    assert images.class_counts().counts.tolist() == [30 * 40 - 75, 75]


@pytest.mark.parametrize(("box", "cut"), [([50, 30, 70, 50], True), ([50, 30, 32, 30], False)])
def test_boxes_beyond_their_image_are_noted(tmp_path: Path, box: list[int], cut: bool) -> None:
    data = write(tmp_path, [annotation(1, segmentation=[], bbox=box)], target="boxes")
    (objects, *_) = data.load("train").objects
    assert objects.boxes.tolist() == [[50, 30, 30, 30]]
    assert [problem["kind"] for problem in data.problems] == cut * [
        "boxes reach beyond their image and are cut at its edges"
    ]


def test_an_area_below_zero_is_the_masks_own(tmp_path: Path) -> None:
    assert write(tmp_path, [annotation(1, area=-1)]).load("train").objects[0].areas.tolist() == [400]
