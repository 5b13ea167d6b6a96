"""Each layout of docs/your_data.md is recognised, described, and read with the right classes and counts."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cv_lab.data.own import OwnData
from cv_lab.data.recognise import recognise, target_of

Build = Callable[[Path], None]
COLOURS = {"background": (0, 0, 0), "road": (128, 64, 128), "car": (0, 0, 142)}


def image(path: Path, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (10, 12, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def images(folder: Path, count: int, suffix: str = ".png", start: int = 0) -> list[Path]:
    paths = [folder / f"{number}{suffix}" for number in range(start, start + count)]
    for number, path in enumerate(paths):
        image(path, number)
    return paths


def mask(path: Path, colours: bool = False, values: tuple[int, ...] = (0, 1, 2)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.repeat(np.array(values, np.uint8), 4)[None].repeat(10, 0)
    if colours:
        Image.fromarray(np.array(list(COLOURS.values()), np.uint8)[labels]).save(path)
    else:
        Image.fromarray(labels).save(path)


def with_masks(
    images_in: Path, masks_in: Path, count: int = 10, ending: str = "", suffix: str = ".jpg", colours: bool = False
) -> None:
    for path in images(images_in, count, suffix):
        mask(masks_in / f"{path.stem}{ending}.png", colours)


def classes_txt(root: Path) -> None:
    (root / "classes.txt").write_text("background\nroad\ncar\n")


def folders(*splits: str, counts: tuple[int, ...] = (10,)) -> Build:
    def build(root: Path) -> None:
        for split, count in zip(splits, counts, strict=True):
            for name in ("cat", "dog", "owl"):
                images(root / split / name, count)

    return build


def masks_in(*pairs: tuple[str, str], **options: Any) -> Build:
    def build(root: Path) -> None:
        for one, other in pairs:
            with_masks(root / one, root / other, **options)
        classes_txt(root)

    return build


def table(name: str, text: str) -> Build:
    def build(root: Path) -> None:
        files = images(root / "photos", 12)
        rows = [text.format(path.name, "cat" if k % 2 else "dog", k % 2, 1 - k % 2) for k, path in enumerate(files)]
        header = "file\tlabel" if "\t" in text else "file,label" if text.count(",") == 1 else "file,cat,dog"
        (root / name).write_text("\n".join([header, *rows]))

    return build


def coco(json_path: str, folder: str, count: int = 10) -> Build:
    def build(root: Path) -> None:
        files = images(root / folder, count, ".jpg")
        records = [{"id": k, "file_name": path.name, "width": 12, "height": 10} for k, path in enumerate(files)]
        square = [[2, 2, 8, 2, 8, 8, 2, 8]]
        objects = [
            {"id": k, "image_id": k, "category_id": 7 + k % 2, "segmentation": square, "bbox": [2, 2, 6, 6], "area": 36}
            for k in range(count)
        ]
        content = {
            "images": records,
            "annotations": objects,
            "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}],
        }
        path = root / json_path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    return build


def several(*builds: Build) -> Build:
    def build(root: Path) -> None:
        for one in builds:
            one(root)

    return build


def voc(root: Path) -> None:
    with_masks(root / "JPEGImages", root / "SegmentationClass")
    classes_txt(root)
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(map(str, range(7))))
    (lists / "val.txt").write_text("7\n8\n9\n")


def cvat(root: Path) -> None:
    with_masks(root / "JPEGImages", root / "SegmentationClass", colours=True)
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in COLOURS.items()]
    (root / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines]))
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/default.txt").write_text("\n".join(map(str, range(10))))


def roboflow_masks(root: Path) -> None:
    for split, count in (("train", 10), ("valid", 3)):
        with_masks(root / split, root / split, count, "_mask")
        (root / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, road\n2, car\n")


def cityscapes(root: Path) -> None:
    for split in ("train", "val"):
        for number in range(6):
            image(root / f"leftImg8bit/{split}/ulm/ulm_{number}_leftImg8bit.png")
            mask(root / f"gtFine/{split}/ulm/ulm_{number}_gtFine_labelIds.png")
    classes_txt(root)


POLYGON, BOX = ".2 .2 .7 .2 .7 .8 .2 .8", ".5 .5 .4 .4"


def yolo(*folders: tuple[str, str], shape: str = POLYGON, count: int = 10) -> Build:
    """Folders of images, with those of their labels."""

    def build(root: Path) -> None:
        for images_in, labels_in in folders:
            (root / labels_in).mkdir(parents=True, exist_ok=True)
            for number, path in enumerate(images(root / images_in, count, ".jpg")):
                (root / labels_in / f"{path.stem}.txt").write_text(f"{number % 2} {shape}")

    return build


def text(name: str, content: str) -> Build:
    return lambda root: (root / name).write_text(content) and None


def voc_xml(images_in: str, xml_in: str, count: int = 10) -> Build:
    def build(root: Path) -> None:
        (root / xml_in).mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(images(root / images_in, count, ".jpg")):
            box = "<xmin>3</xmin><ymin>3</ymin><xmax>8</xmax><ymax>8</ymax>"
            (root / xml_in / f"{path.stem}.xml").write_text(
                "<annotation><size><width>12</width><height>10</height><depth>3</depth></size>"
                f"<object><name>{TWO[number % 2]}</name><bndbox>{box}</bndbox></object></annotation>"
            )

    return build


def main_lists(root: Path) -> None:
    (root / "ImageSets/Main").mkdir(parents=True)
    for split, numbers in (("train", range(6)), ("val", range(6, 8)), ("test", range(8, 10))):
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(map(str, numbers)))
        (root / f"ImageSets/Main/cat_{split}.txt").write_text("\n".join(f"{number}  1" for number in numbers))


def labelme(folder: str, count: int = 10) -> Build:
    def build(root: Path) -> None:
        for number, path in enumerate(images(root / folder, count, ".jpg")):
            shape = {"label": TWO[number % 2], "points": [[2, 2], [8, 8]], "shape_type": "rectangle"}
            content = {"shapes": [shape], "imagePath": path.name, "imageHeight": 10, "imageWidth": 12}
            path.with_suffix(".json").write_text(json.dumps(content))

    return build


def numbered(images_in: str, masks_in: str, ending: str = "_mask") -> Build:
    def build(root: Path) -> None:
        for path in images(root / images_in, 10):
            mask(root / masks_in / f"{path.stem}{ending}.png")

    return build


def npz(labels: int) -> Build:
    def build(root: Path) -> None:
        arrays: dict[str, np.ndarray] = {}
        for split, count in (("train", 9), ("val", 3), ("test", 6)):
            arrays[f"{split}_images"] = np.zeros((count, 8, 8), np.uint8)
            arrays[f"{split}_labels"] = np.arange(count * labels).reshape(count, labels) % 3
            if labels > 1:
                arrays[f"{split}_labels"] = (arrays[f"{split}_labels"] > 0).astype(np.uint8)
        np.savez(root / "medmnist.npz", **arrays)  # type: ignore[arg-type]

    return build


ANIMALS, ROADS, TWO = ("cat", "dog", "owl"), ("background", "road", "car"), ("cat", "dog")
# name: what the task learns from, what is built, classes, images to train on, validate and test, what is said
LAYOUTS: dict[str, tuple[str, Build, tuple[str, ...], tuple[int, int, int], str]] = {
    "classes": (
        *("label", folders("."), ANIMALS, (22, 4, 4)),
        "ImageFolder, 3 classes, 30 images in one set: 15 % held out for validation and 15 % for the test",
    ),
    "classes, unpacked": ("label", folders("pets"), ANIMALS, (22, 4, 4), "3 classes, 30 images in one set"),
    "classes, train": ("label", folders("Train"), ANIMALS, (22, 4, 4), "30 images in one set"),
    "classes, train and val": (
        *("label", folders("train", "valid", counts=(10, 2)), ANIMALS, (26, 6, 4)),
        "36 images (train 30, val 6): 15 % held out for the test",
    ),
    "classes, train and test": (
        *("label", folders("training", "Testing", counts=(10, 2)), ANIMALS, (26, 4, 6)),
        "36 images (train 30, test 6): 15 % held out for validation",
    ),
    "classes, three sets": (
        *("label", folders("train", "val", "test", counts=(10, 2, 1)), ANIMALS, (30, 6, 3)),
        "ImageFolder, 3 classes, 39 images (train 30, val 6, test 3)",
    ),
    "classes, Kaggle's test": (
        *("label", several(folders("train"), lambda root: (images(root / "test", 5), None)[1]), ANIMALS, (22, 4, 4)),
        "30 images in one set; test/ has no folders of classes and is not used",
    ),
    "CSV": ("label", table("labels.csv", "photos/{},{}"), TWO, (8, 2, 2), "the table labels.csv, 2 labels, 12 images"),
    "TSV": ("label", table("labels.tsv", "{}\t{}"), TWO, (8, 2, 2), "the table labels.tsv, 2 labels, 12 images"),
    "CSV of several labels": ("labels", table("a.csv", "photos/{},{}"), TWO, (8, 2, 2), "12 images in one set"),
    "CSV of 0 and 1": ("labels", table("a.csv", "photos/{0},{2},{3}"), TWO, (8, 2, 2), "2 labels"),
    "npz": ("label", npz(1), ("0", "1", "2"), (9, 3, 6), "medmnist.npz, 18 images (train 9, val 3, test 6)"),
    "npz of several labels": ("labels", npz(4), ("0", "1", "2", "3"), (9, 3, 6), "medmnist.npz, 18 images"),
    "masks": (
        *("mask", masks_in(("images", "masks")), ROADS, (7, 1, 2)),
        "images with masks, 3 classes, 10 images in one set: 15 % held out for validation and 15 % for the test",
    ),
    "masks, labels": ("mask", masks_in(("imgs", "labels"), suffix=".bmp"), ROADS, (7, 1, 2), "10 images in one set"),
    "masks, endings": ("mask", masks_in(("images", "gt"), ending="_mask"), ROADS, (7, 1, 2), "10 images in one set"),
    "masks per split": (
        *("mask", masks_in(("train/images", "train/masks"), ("val/images", "val/masks")), ROADS, (8, 10, 2)),
        "20 images (train 10, val 10): 15 % held out for the test",
    ),
    "splits per masks": (
        *("mask", masks_in(("images/train", "masks/train"), ("images/test", "masks/test")), ROADS, (8, 2, 10)),
        "20 images (train 10, test 10): 15 % held out for validation",
    ),
    "masks, ADE20K": (
        "mask",
        masks_in(("images/training", "annotations/training"), ("images/validation", "annotations/validation")),
        *(ROADS, (8, 10, 2), "train 10, val 10"),
    ),
    "masks, CamVid": ("mask", masks_in(("train", "trainannot"), ("test", "testannot")), ROADS, (8, 2, 10), "test 10"),
    "masks, Carvana": ("mask", masks_in(("train", "train_masks"), ending="_mask"), ROADS, (7, 1, 2), "10 images"),
    "masks, Cityscapes": ("mask", cityscapes, ROADS, (5, 6, 1), "12 images (train 6, val 6)"),
    "masks, VOC": (
        "mask",
        voc,
        ROADS,
        (6, 3, 1),
        "masks of Pascal VOC's layout, 3 classes, 10 images (train 7, val 3)",
    ),
    "masks, CVAT": ("mask", cvat, ROADS, (7, 1, 2), "Pascal VOC's layout, 3 classes, 10 images in one set"),
    "masks, Roboflow": ("mask", roboflow_masks, ROADS, (8, 3, 2), "images with masks, 3 classes, 13 images"),
    "COCO": (
        *("instances", coco("annotations.json", "images"), TWO, (6, 2, 2)),
        "COCO json, 10 images in one set: 15 % held out for validation and 15 % for the test",
    ),
    "COCO beside": ("instances", coco("images/result.json", "images"), TWO, (6, 2, 2), "10 images in one set"),
    "COCO, three sets": (
        "instances",
        several(coco("train.json", "train"), coco("val.json", "val", 4), coco("test.json", "test", 3)),
        *(TWO, (10, 4, 3), "COCO json, 17 images (train 10, val 4, test 3)"),
    ),
    "COCO as published": (
        "instances",
        several(
            coco("annotations/instances_train2017.json", "train2017"),
            coco("annotations/instances_val2017.json", "val2017", 4),
        ),
        *(TWO, (8, 4, 2), "14 images (train 10, val 4): 15 % held out for the test"),
    ),
    "COCO, Roboflow": (
        "instances",
        several(coco("train/_annotations.coco.json", "train"), coco("valid/_annotations.coco.json", "valid", 4)),
        *(TWO, (8, 4, 2), "14 images (train 10, val 4)"),
    ),
    "COCO boxes": ("boxes", coco("annotations.json", "images"), TWO, (6, 2, 2), "COCO json, 10 images in one set"),
    "YOLO": (
        "instances",
        several(
            yolo(("images/train", "labels/train"), ("images/val", "labels/val")),
            text("data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}"),
        ),
        *(TWO, (8, 10, 2), "YOLO's labels, 2 classes, 20 images (train 10, val 10): 15 % held out for the test"),
    ),
    "YOLO, lists": (
        "boxes",
        several(
            yolo(("images", "labels"), shape=BOX),
            text("train.txt", "".join(f"./images/{k}.jpg\n" for k in range(6))),
            text("test.txt", "".join(f"data/images/{k}.jpg\n" for k in range(6, 10))),
            text("data.yaml", "train: train.txt\ntest: test.txt\nnames: [cat, dog]"),
        ),
        *(TWO, (4, 2, 4), "YOLO's labels, 2 classes, 10 images (train 6, test 4): 15 % held out for validation"),
    ),
    "YOLO, Roboflow": (
        "instances",
        several(
            yolo(("train/images", "train/labels"), ("valid/images", "valid/labels"), ("test/images", "test/labels")),
            text("data.yaml", "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [cat, dog]"),
        ),
        *(TWO, (10, 10, 10), "30 images (train 10, val 10, test 10)"),
    ),
    "YOLO without a yaml": (
        *("boxes", several(yolo(("images", "labels"), shape=BOX), text("classes.txt", "cat\ndog\n")), TWO, (6, 2, 2)),
        "YOLO's labels, 2 classes, 10 images in one set: 15 % held out for validation and 15 % for the test",
    ),
    "YOLO, names among the labels": (
        *("boxes", several(yolo(("images", "labels"), shape=BOX), text("labels/classes.txt", "cat\ndog")), TWO),
        *((6, 2, 2), "10 images in one set"),
    ),
    "YOLO, CVAT": (
        "boxes",
        several(
            yolo(("obj_train_data", "obj_train_data"), shape=BOX),
            text("obj.names", "cat\ndog\n"),
            text("train.txt", "".join(f"data/obj_train_data/{k}.jpg\n" for k in range(10))),
        ),
        *(TWO, (6, 2, 2), "YOLO's labels, 2 classes, 10 images in one set"),
    ),
    "YOLO painted": (
        *("mask", several(yolo(("images", "labels")), text("classes.txt", "cat\ndog\n")), ("background", *TWO)),
        *((7, 1, 2), "YOLO's labels"),
    ),
    "VOC xml": (
        *("boxes", several(voc_xml("JPEGImages", "Annotations"), main_lists), TWO, (6, 2, 2)),
        "XML files of Pascal VOC's form, 10 images (train 6, val 2, test 2)",
    ),
    "VOC xml, stray files": (
        *("boxes", several(voc_xml("images", "annotations"), text("about.txt", "0 1 2 3 4"), labelme("elsewhere", 1))),
        *(TWO, (6, 2, 2), "XML files of Pascal VOC's form, 10 images in one set"),
    ),
    "VOC xml, no lists": ("boxes", voc_xml("images", "annotations"), TWO, (6, 2, 2), "10 images in one set"),
    "VOC xml, Roboflow": (
        *("boxes", several(voc_xml("train", "train"), voc_xml("valid", "valid", 4)), TWO, (8, 4, 2)),
        "XML files of Pascal VOC's form, 14 images (train 10, val 4): 15 % held out for the test",
    ),
    "labelme": ("instances", labelme("photos"), TWO, (6, 2, 2), "JSON files of labelme, 10 images in one set"),
    "labelme, splits": (
        *("instances", several(labelme("train"), labelme("test", 4)), TWO, (8, 2, 4)),
        "14 images (train 10, test 4): 15 % held out for validation",
    ),
    "labelme painted": ("mask", labelme("photos"), ("background", *TWO), (7, 1, 2), "JSON files of labelme"),
    "Penn-Fudan": (
        "instances",
        several(numbered("PNGImages", "PedMasks"), text("about.xml", "<x/>"), text("about.json", '{"shapes": []}')),
        *(("object",), (7, 1, 2)),
        "masks that number objects, 10 images in one set: 15 % held out for validation and 15 % for the test",
    ),
    "COCO painted": ("mask", coco("annotations.json", "images"), ("background", *TWO), (7, 1, 2), "COCO json"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_recognised_described_and_read(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    target, build, classes, counts, said = LAYOUTS[name]
    build(tmp_path)
    size = None if name.startswith("npz") else (16, 16) if target in ("mask", "instances", "boxes") else 8
    data = OwnData(str(tmp_path), target=target, image_size=size, batch_size=2, val_fraction=0.15)
    data.setup()
    assert data.classes == classes
    assert data.train is not None
    assert (len(data.train), len(data.val), len(data.test)) == counts
    assert said in caplog.text
    assert "dropped" not in caplog.text
    seen = data.train.class_counts().counts
    assert (seen > 0).all()
    if target == "label":
        assert seen.sum() == counts[0]
    assert data.fingerprint()
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape[0] == 2


@pytest.mark.parametrize(
    ("target", "build", "told"),
    [
        ("label", masks_in(("images", "masks")), "It would serve task=semantic_segmentation"),
        ("label", coco("train/_annotations.coco.json", "train"), "task=semantic_segmentation or task=instance"),
        ("mask", folders("train"), "It would serve task=classification"),
        ("label", lambda root: (images(root, 3), None)[1], "holds 3 files .png, in no layout known.*CLASS/"),
        ("label", folders("."), ""),
        ("label", lambda root: (images(root / "cats", 3), None)[1], "the folders cats, in no layout"),
        ("instances", several(yolo(("images", "labels"), shape=BOX), text("classes.txt", "a\nb")), "model.masks=false"),
        ("instances", voc_xml("JPEGImages", "Annotations"), "It would serve task=instance_segmentation model.masks=f"),
        ("instances", masks_in(("images", "masks")), r"each number in a mask is an object.*data\.instances=NAME"),
        ("boxes", yolo(("images", "labels"), shape=BOX), "nothing in .* names the classes: write classes.txt"),
        ("instances", lambda root: (root / "notes.txt").write_text("x") and None, "holds 1 files .txt"),
        ("label", several(table("a.csv", "photos/{},{}"), table("b.csv", "photos/{},{}")), "several tables of labels"),
        ("instances", several(coco("a.json", "images"), coco("b.json", "images")), "are both annotations of the train"),
    ],
)
def test_what_is_not_recognised_is_refused_with_what_was_seen(
    target: str, build: Build, told: str, tmp_path: Path
) -> None:
    build(tmp_path)
    if not told:
        recognise(tmp_path, target)
        return
    with pytest.raises(ValueError, match=told):
        recognise(tmp_path, target)


def test_every_file_that_is_dropped_is_kept_for_the_table_of_problems(tmp_path: Path) -> None:
    LAYOUTS["classes"][1](tmp_path)
    (path := next(tmp_path.rglob("*.png"))).write_bytes(b"no image")
    data = OwnData(str(tmp_path), image_size=16)
    data.setup()
    assert [path.name in row["example"] for row in data.problem_files if row["what"] == "dropped"] == [True]


def test_a_class_called_train_is_no_split(tmp_path: Path) -> None:
    for name in ("bus", "car", "train"):
        images(tmp_path / name, 8)
    data = OwnData(str(tmp_path), image_size=8)
    data.setup()
    assert data.classes == ("bus", "car", "train")


def test_options_of_another_layout_are_refused(tmp_path: Path) -> None:
    folders(".")(tmp_path)
    with pytest.raises(ValueError, match=r"data\.values has no effect on ImageFolder"):
        OwnData(str(tmp_path), values={0: "background"}).setup()


def test_values_and_colours_reach_the_masks(tmp_path: Path) -> None:
    for path in images(tmp_path / "images", 10):
        mask(tmp_path / "masks" / path.name, values=(0, 255, 255))
    data = OwnData(str(tmp_path), target="mask", values={0: "background", 255: "road"}, image_size=(10, 12))
    data.setup()
    assert data.train is not None
    counts = data.train.class_counts().counts
    assert counts.tolist() == [7 * 40, 7 * 80]


def test_a_table_names_files_of_a_folder_below(tmp_path: Path) -> None:
    images(tmp_path / "train_images", 4)
    with (tmp_path / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image_id", "label"], *([f"{k}.png", "ab"[k % 2]] for k in range(4))])
    layout = recognise(tmp_path, "label")
    assert layout.options["root"] == str(tmp_path / "train_images")


@pytest.mark.parametrize("tested", [3, 12])
def test_a_table_names_training_images_where_test_images_have_their_names(tested: int, tmp_path: Path) -> None:
    images(tmp_path / "test_images", tested)
    files = images(tmp_path / "train_images", 12)
    (tmp_path / "train.csv").write_text("\n".join(["file,label", *(f"{p.name},{p.stem}" for p in files)]))
    assert recognise(tmp_path, "label").options["root"] == str(tmp_path / "train_images")


def test_a_coco_json_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco("annotations.json", "images")(tmp_path)
    parsed: list[Any] = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda content, **some: (parsed.append(content), loads(content, **some))[1])
    OwnData(str(tmp_path), target="instances", image_size=(16, 16)).setup()
    assert len([content for content in parsed if b"annotations" in content]) == 1


def one_label_npz(root: Path) -> None:
    np.savez(root / "m.npz", train_images=np.zeros((9, 8, 8), np.uint8), train_labels=np.zeros(9, int))


def gap_npz(root: Path) -> None:
    np.savez(root / "m.npz", train_images=np.zeros((8, 8, 8), np.uint8), train_labels=np.array([0, 3] * 4))


def empty_npz(root: Path) -> None:
    np.savez(root / "m.npz", train_images=np.zeros((0, 8, 8), np.uint8), train_labels=np.zeros(0, int))


def masks_of(*values: int, names: str = "background\nroad\ncar\n") -> Build:
    def build(root: Path) -> None:
        for path in images(root / "images", 10):
            mask(root / "masks" / path.name, values=values)
        (root / "classes.txt").write_text(names)

    return build


@pytest.mark.parametrize(
    ("target", "build", "options", "message"),
    [
        ("label", one_label_npz, {}, "of 0, the 7 training images hold 0 alone"),
        ("label", gap_npz, {}, "classes without an image to train on: 1 and 2"),
        ("label", empty_npz, {}, "at least one image"),
        ("label", table("labels.csv", "{0},cat"), {}, "hold cat alone"),
        ("mask", masks_of(255, 255, 255), {}, "background, road and car, the 7 training images hold nothing alone"),
        ("mask", masks_of(0, 0, 0), {}, "hold background alone"),
        ("mask", masks_of(0, 0, 0, names="road\n"), {}, "of road, the 7 training images hold road alone"),
        (
            "mask",
            masks_of(0, 1, 1),
            {"values": {0: "unlabelled", 1: "road"}},
            "of road, the 7 training images hold road alone",
        ),
    ],
)
def test_data_with_nothing_to_tell_apart_are_refused(
    target: str, build: Build, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    build(tmp_path)
    with pytest.raises(ValueError, match=message):  # noqa: PT012 (which step refuses depends on the kind of data)
        data = OwnData(str(tmp_path), target=target, **options)
        data.setup()
        data.refuse_one_class()


def test_a_table_that_cannot_be_read_is_named_where_nothing_else_is_recognised(tmp_path: Path) -> None:
    images(tmp_path / "photos", 2)
    (tmp_path / "labels.csv").write_text("file,label,split\n0.png,cat,train\n1.png,dog,later\n")
    with pytest.raises(ValueError, match=r"labels\.csv has the splits 'later'.*Known are CLASS"):
        recognise(tmp_path, "label")
    with pytest.raises(ValueError, match=r"labels\.csv has the splits 'later'.*Known are for task=classification"):
        target_of(tmp_path)


def test_masks_of_classes_beside_images_are_no_masks_of_objects(tmp_path: Path) -> None:
    roboflow_masks(tmp_path)
    assert target_of(tmp_path) == "mask"


def test_sets_whose_names_of_classes_differ_are_refused(tmp_path: Path) -> None:
    roboflow_masks(tmp_path)
    (tmp_path / "valid/_classes.csv").write_text("Pixel Value, Class\n0, background\n1, car\n2, road\n")
    with pytest.raises(ValueError, match=r"train/_classes.csv and .*valid/_classes.csv differ"):
        OwnData(str(tmp_path), target="mask").setup()


@pytest.mark.parametrize(
    ("target", "build", "words"),
    [
        ("mask", masks_in(("train/images", "train/masks")), "; test/ has no masks and is not used"),
        ("mask", masks_in(("images/train", "masks/train")), "; images/test/ has no masks and is not used"),
        ("instances", coco("train.json", "train"), "; test/ has no annotations and is not used"),
        (
            "boxes",
            several(yolo(("images", "labels"), shape=BOX), text("classes.txt", "cat\ndog")),
            "; test/ has no files of objects and is not used",
        ),
    ],
)
def test_sets_without_labels_are_named(target: str, build: Build, words: str, tmp_path: Path) -> None:
    build(tmp_path)
    images(tmp_path / ("images/test" if "images/" in words else "test"), 3)
    assert recognise(tmp_path, target).about.endswith(words)


def test_hidden_copies_of_annotations_are_not_read(tmp_path: Path) -> None:
    coco("annotations.json", "images")(tmp_path)
    (tmp_path / ".ipynb_checkpoints").mkdir()
    content = (tmp_path / "annotations.json").read_text()
    (tmp_path / ".ipynb_checkpoints/annotations-checkpoint.json").write_text(content)
    assert recognise(tmp_path, "instances").about == "10 images in one set"


@pytest.mark.parametrize("text", ["<annotation/>", "<annotation><object/></annotation>"])
def test_files_without_any_object_are_refused_in_words(text: str, tmp_path: Path) -> None:
    for path in images(tmp_path / "images", 8):
        (tmp_path / "images" / f"{path.stem}.xml").write_text(text)
    with pytest.raises(ValueError, match="none of its 8 images holds an object of any class"):
        OwnData(str(tmp_path), target="boxes").setup()


def test_names_of_a_list_count_once_and_are_named_where_no_image_has_them(tmp_path: Path) -> None:
    voc(tmp_path)
    names = tmp_path / "ImageSets/Segmentation/train.txt"
    names.write_text("0\n0\n1\n2\n")
    assert len(OwnData(str(tmp_path), target="mask").load("train")) == 3
    names.write_text("JPEGImages/0.jpg SegmentationClass/0.png\n")
    with pytest.raises(ValueError, match=r"names of the list without an image: JPEGImages/0\.jpg SegmentationClass"):
        OwnData(str(tmp_path), target="mask").load("train")
