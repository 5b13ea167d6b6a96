"""Images with masks from files: layouts, scaling, and what is told of files that cannot be used."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cv_lab.data.coco import Coco
from cv_lab.data.mask_files import MaskFiles
from cv_lab.data.mask_folder import MaskFolder, meaning
from cv_lab.data.oxford_pet_trimaps import OxfordPetTrimaps
from cv_lab.data.shapes import Shapes
from cv_lab.data.voc import CLASSES, Voc
from tests.conftest import need


def write_mask(path: Path, labels: np.ndarray, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(labels.astype(np.uint8), mode="L")
    if mode == "P":
        mask = Image.fromarray(labels.astype(np.uint8), mode="P")
        mask.putpalette(list(range(256)) * 3)
    if mode == "RGB":
        mask = Image.fromarray(np.full((*labels.shape, 3), (128, 64, 0), np.uint8))
    mask.save(path)


def write_image(path: Path, width: int, height: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 200, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten training and two test images of 40 x 30 pixels: the left half is class 0, the right one class 1."""
    for split, count in (("train", 10), ("test", 2)):
        for number in range(count):
            labels = np.zeros((30, 40))
            labels[:, 20:] = 1
            write_image(tmp_path / split / "images" / f"{number}.jpg", 40, 30)
            write_mask(tmp_path / split / "masks" / f"{number}.png", labels)
    (tmp_path / "classes.txt").write_text("background\ncat\n")
    return tmp_path


def load(folder: Path, **options: object) -> MaskFolder:
    data = MaskFolder(str(folder), image_size=(16, 16), **options)  # type: ignore[arg-type]
    data.setup()
    return data


def test_a_folder_is_scaled_in_proportion_and_the_rest_is_unlabelled(folder: Path) -> None:
    data = load(folder)
    assert data.train is not None
    assert data.train.masks is not None
    assert data.classes == ("background", "cat")
    assert (len(data.train), len(data.val), len(data.test)) == (9, 1, 2)
    assert data.train.images.shape == (9, 3, 16, 16)
    mask = data.train.masks[0]
    assert torch.all(mask[12:] == 255)  # 40 x 30 in 16 x 16 is 16 x 12
    assert torch.all(mask[:12, :8] == 0)
    assert torch.all(mask[:12, 8:] == 1)
    assert data.train.class_counts().counts.tolist() == [9 * 96, 9 * 96]


def test_a_palette_mask_is_read_as_indices(folder: Path) -> None:
    labels = np.zeros((30, 40))
    labels[:, 20:] = 1
    for path in (folder / "train/masks").iterdir():
        write_mask(path, labels, "P")
    data = load(folder)
    assert data.train is not None
    assert data.train.class_counts().counts.tolist() == [9 * 96, 9 * 96]


def spoil_size(folder: Path) -> None:
    write_mask(folder / "train/masks/3.png", np.zeros((40, 30)))


def spoil_label(folder: Path) -> None:
    write_mask(folder / "train/masks/3.png", np.full((30, 40), 7))


def spoil_mode(folder: Path) -> None:
    write_mask(folder / "train/masks/3.png", np.zeros((30, 40)), "RGB")


def spoil_palette(folder: Path) -> None:
    write_mask(folder / "train/masks/3.png", np.full((30, 40), 2), "P")


def remove_mask(folder: Path) -> None:
    (folder / "train/masks/3.png").unlink()


def truncate_mask(folder: Path) -> None:
    path = folder / "train/masks/3.png"
    path.write_bytes(path.read_bytes()[:40])


def truncate_image(folder: Path) -> None:
    path = folder / "train/images/3.jpg"
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_size, "3.png is 30 x 40 pixels, its image 40 x 30"),
        (spoil_label, "3.png has label 7, but there are 2 classes, 0 to 1"),
        (spoil_mode, "3.png is saved as RGB"),
        (spoil_palette, "3.png has label 2"),
        (remove_mask, "there is no mask .*3.png"),
        (truncate_mask, "3.png cannot be decoded"),
        (truncate_image, "3.jpg cannot be decoded"),
    ],
)
def test_a_file_that_cannot_be_used_is_dropped_and_named(
    folder: Path, spoil: Callable[[Path], None], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(folder)
    with pytest.raises(ValueError, match=told):
        load(folder, strict=True)
    if "label" in told:  # a class without a name is no damage
        with pytest.raises(ValueError, match=f"1 of 10 masks have labels of no class: .*{told}"):
            load(folder)
        return
    data = load(folder)
    assert re.search(f"dropped 1 .*{told}", caplog.text)
    assert data.train is not None
    assert len(data.train) + len(data.val) == 9
    (problem,) = (problem for problem in data.problems if problem["what"] == "dropped")
    assert (problem["what"], problem["count"]) == ("dropped", 1)


def test_all_wrong_files_are_told_in_one_message(folder: Path) -> None:
    for number in range(8):
        (folder / f"train/masks/{number}.png").unlink()
    with pytest.raises(ValueError, match=r"8 missing masks \(.*0\.png, .*5\.png and 2 more\)"):
        load(folder, strict=True)
    for number in range(8, 10):
        (folder / f"train/masks/{number}.png").unlink()
    with pytest.raises(FileNotFoundError, match="holds no images with masks to train on"):
        load(folder)


def test_an_image_without_labelled_pixels_is_named_but_no_error(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_mask(folder / "train/masks/3.png", np.full((30, 40), 255))
    with caplog.at_level(logging.WARNING):
        load(folder)
    assert "1 images have no labelled pixel" in caplog.text
    assert "3.jpg" in caplog.text


def test_missing_folders_and_names_are_told(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load(folder / "nowhere")
    (folder / "classes.txt").unlink()
    with pytest.raises(FileNotFoundError, match="classes"):
        load(folder)
    assert load(folder, classes=["a", "b"]).classes == ("a", "b")
    with pytest.raises(ValueError, match="there is 1 class, 0"):  # and not a class a letter
        load(folder, classes="ab")
    with pytest.raises(ValueError, match="height and a width"):
        MaskFolder(str(folder), image_size=(16,))


def test_voc_reads_its_lists_and_says_what_is_missing(tmp_path: Path) -> None:
    base = tmp_path / "VOCdevkit/VOC2007"
    for name in "abcd":
        write_image(base / f"JPEGImages/{name}.jpg", 20, 20)
        write_mask(base / f"SegmentationClass/{name}.png", np.full((20, 20), 20), "P")
    (base / "ImageSets/Segmentation").mkdir(parents=True)
    (base / "ImageSets/Segmentation/train.txt").write_text("a\nb\nc\n")
    (base / "ImageSets/Segmentation/val.txt").write_text("d\n")
    data = Voc(str(tmp_path), 2007, image_size=(8, 8), val_fraction=0.3)
    data.prepare_data()
    data.setup()
    assert data.train is not None
    assert (len(data.train), len(data.val), len(data.test)) == (2, 1, 1)
    assert data.classes == CLASSES
    assert data.train.class_counts().counts[20] == 2 * 64
    with pytest.raises(FileNotFoundError, match=r"data\.download=true"):
        Voc(str(tmp_path / "x"), 2007, download=False).prepare_data()
    with pytest.raises(ValueError, match="2007 to 2012"):
        Voc(year=2006)


def coco(folder: Path) -> Path:
    """Two images: a large square with a small one in it, and a crowd."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 20, "height": 20} for i in (1, 2)]

    def square(id: int, image: int, category: int, low: int, high: int) -> dict[str, object]:
        polygon = [[low, low, high, low, high, high, low, high]]
        return {
            "id": id,
            "image_id": image,
            "category_id": category,
            "segmentation": polygon,
            "area": (high - low) ** 2,
            "iscrowd": 0,
        }

    runs = {"size": [20, 20], "counts": [0, 100, 300]}
    crowd = {"id": 3, "image_id": 2, "category_id": 90, "segmentation": runs, "area": 100, "iscrowd": 1}
    annotations = [square(1, 1, 90, 8, 12), square(2, 1, 5, 4, 16), crowd, square(4, 2, 5, 10, 20)]
    categories = [{"id": 5, "name": "car"}, {"id": 90, "name": "toothbrush"}]
    (folder / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        for image in images:
            write_image(folder / split / str(image["file_name"]), 20, 20)
        text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
        (folder / "annotations" / f"instances_{split}.json").write_text(text)
    return folder


def semantic(folder: str | Path, **options: Any) -> Coco:
    train, test = (f"{folder}/annotations/instances_{split}.json" for split in ("train2017", "val2017"))
    folders = f"{folder}/train2017", f"{folder}/val2017"
    return Coco(folders[0], train, folders[1], test, target="mask", image_size=(20, 20), **options)


def test_coco_is_painted_with_the_small_on_top_and_crowds_unlabelled(tmp_path: Path) -> None:
    data = semantic(coco(tmp_path), validation="test")
    data.setup()
    assert data.train is not None
    assert data.train.masks is not None
    assert data.classes == ("background", "car", "toothbrush")
    first, second = data.train.masks
    assert (first[0, 0], first[5, 5], first[10, 10]) == (0, 1, 2)
    assert torch.all(second[:, :5] == 255)  # runs go down the columns
    assert second[15, 15] == 1


def test_coco_categories_can_be_chosen_by_name_or_frequency(tmp_path: Path) -> None:
    root = str(coco(tmp_path))
    named = semantic(root, classes=["toothbrush"], validation="test")
    named.setup()
    assert named.train is not None
    assert named.classes == ("background", "toothbrush")
    assert named.train.masks is not None
    assert (named.train.masks[0, 5, 5], named.train.masks[0, 10, 10]) == (0, 1)
    frequent = semantic(root, classes=1, train_images=1, validation="test")
    frequent.setup()
    assert frequent.train is not None
    assert len(frequent.train) == 1
    assert len(frequent.classes) == 2
    with pytest.raises(ValueError, match="unicorn"):
        semantic(root, classes=["unicorn"]).setup()
    with pytest.raises(FileNotFoundError, match="annotations"):
        semantic(tmp_path / "x").setup()


def test_shapes_have_masks_with_a_background() -> None:
    data = Shapes(40, 10, 32, target="mask")
    data.setup()
    assert data.train is not None
    assert data.classes[0] == "background"
    assert data.train.class_counts().counts.argmax() == 0
    assert "mask" in data.train.__getitems__([0, 1])


def test_camvid_has_its_eleven_classes() -> None:
    root = need("camvid") / "camvid"
    names = ["Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bike"]
    data = Voc(str(root), 2012, names, download=False, image_size=(60, 80), validation="test")
    data.setup()
    assert data.train is not None
    assert (len(data.train), len(data.test)) == (367, 101)
    assert (data.train.class_counts().counts > 0).all()


def test_trimaps_become_two_classes_and_an_unlabelled_border(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "oxford-iiit-pet"
    for number in range(4):
        write_image(folder / f"images/cat_{number}.jpg", 12, 12)
    for number in range(3):
        write_mask(folder / f"annotations/trimaps/cat_{number}.png", np.repeat([[1], [2], [3]], 4, 0).repeat(12, 1))
    lines = "".join(f"cat_{number} 1 1 1\n" for number in range(4))
    for name in ("trainval", "test"):
        (folder / f"annotations/{name}.txt").write_text(lines)
    data = OxfordPetTrimaps(str(tmp_path), image_size=(12, 12), validation="test")
    data.prepare_data()
    with caplog.at_level(logging.WARNING):
        data.setup()
    assert data.train is not None
    assert data.train.masks is not None
    assert data.train.masks[0, :, 0].tolist() == [1] * 4 + [0] * 4 + [255] * 4
    assert "1 of 4 images have no trimap" in caplog.text


# What people bring.


def turned(path: Path, pixels: np.ndarray, orientation: int) -> None:
    """Save upright `pixels` as a phone stores them."""
    inverse = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).transpose(inverse[orientation]).save(path, exif=exif, quality=95)


@pytest.mark.parametrize("orientation", [2, 3, 6])
@pytest.mark.parametrize("drawn_on", ["upright", "stored", "tagged"])
def test_masks_cover_what_they_were_drawn_on(folder: Path, orientation: int, drawn_on: str) -> None:
    """The white quarter of each photograph is labelled 1."""
    if drawn_on == "stored" and orientation != 6:
        pytest.skip("a mask of equal size is of the upright image")
    pixels, labels = np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40), np.uint8)
    pixels[:15, 20:], labels[:15, 20:] = 255, 1
    for path in (folder / "train/images").iterdir():
        turned(path, pixels, orientation)
        mask = folder / f"train/masks/{path.stem}.png"
        if drawn_on == "upright":
            write_mask(mask, labels)
        elif drawn_on == "stored":
            Image.fromarray(labels).transpose(Image.Transpose.ROTATE_90).save(mask)
        else:
            turned(mask, labels, orientation)
    data = MaskFolder(str(folder), image_size=(30, 40))
    images = data.load("train")
    assert images.masks is not None
    shown, mask = images.images[0][0], images.masks[0]
    assert shown.shape == mask.shape
    agreement = ((shown > 127) == (mask == 1)).float().mean()
    assert agreement > 0.99


def test_masks_of_0_and_255_are_refused_or_named(folder: Path) -> None:
    for path in folder.glob("*/masks/*"):
        write_mask(path, np.asarray(Image.open(path)) * 255)
    with pytest.raises(ValueError, match=r"hold 0 and 255 only .*data\.values=\{0: background, 255: cat\}"):
        load(folder)
    named = load(folder, values={0: "background", 255: "cat"})
    assert named.train is not None
    assert named.train.class_counts().counts.tolist() == [9 * 96, 9 * 96]


@pytest.mark.parametrize("given", ["values", "colours", "names"])
def test_numbers_and_colours_are_mapped_to_classes(folder: Path, given: str) -> None:
    (folder / "classes.txt").unlink()
    for path in folder.glob("*/masks/*"):
        labels = np.asarray(Image.open(path)).copy()
        labels[:10] = 2
        table = {"values": [0, 100, 200], "names": [0, 1, 2]}.get(given)
        colours = np.array([[0, 0, 0], [128, 64, 128], [255, 255, 255]], np.uint8)
        Image.fromarray(colours[labels] if table is None else np.array(table, np.uint8)[labels]).save(path)
    options: dict[str, Any] = {
        "values": {"values": {0: "background", "100": "road", 200: "unlabelled"}},
        "colours": {"colours": {"background": [0, 0, 0], "road": "#804080", "unlabelled": "white"}},
        "names": {"classes": ["background", "road", "sky"]},
    }[given]
    data = load(folder, **options)
    assert data.train is not None
    assert data.classes[:2] == ("background", "road")
    third = [9 * 4 * 16] if given == "names" else []
    assert data.train.class_counts().counts.tolist() == [9 * 64, 9 * 64, *third]


def test_labels_without_a_name_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"10 of 10 masks .*0\.png has label 1.*data\.values, as 'unlabelled'"):
        load(folder, values={0: "background", 2: "cat"})
    with pytest.raises(ValueError, match=r"has label #010101.*data\.colours"):
        load(folder, colours={"background": "#000000", "cat": "#ffffff"})
    with pytest.raises(ValueError, match="names dog, but the classes are a, b"):
        load(folder, classes=["a", "b"], values={0: "a", 1: "dog"})
    with pytest.raises(ValueError, match="both given"):
        load(folder, values={0: "a"}, colours={"a": "red"})


def test_palettes_that_differ_in_their_order_are_refused(folder: Path) -> None:
    """An editor that sorts a palette by frequency swaps the labels of one mask."""
    for number in range(10):
        labels = np.asarray(Image.open(folder / f"train/masks/{number}.png"))
        mask = Image.fromarray(1 - labels if number == 3 else labels, mode="P")
        mask.putpalette([200, 0, 0, 0, 0, 0] if number == 3 else [0, 0, 0, 200, 0, 0])
        mask.save(folder / f"train/masks/{number}.png")
    with pytest.raises(
        ValueError, match=r"palettes of the masks differ: label 0 is the colour \[0, 0, 0\] in .*3\.png"
    ):
        load(folder)
    for path in (folder / "test/masks").iterdir():
        path.write_bytes((folder / "train/masks/0.png").read_bytes())
    right = load(folder, colours={"background": [0, 0, 0], "cat": [200, 0, 0]})
    assert right.train is not None
    assert right.train.masks is not None
    assert (right.train.masks[:] == right.train.masks[0]).all()


@pytest.mark.parametrize("name", ["0.PNG", "0.bmp", "0_mask.png", "0.jpg.png", "0.tif"])
def test_masks_are_found_under_usual_names(folder: Path, name: str) -> None:
    mask = Image.open(folder / "train/masks/0.png")
    mask.load()
    (folder / "train/masks/0.png").unlink()
    mask.save(folder / "train/masks" / name)
    assert len(load(folder, strict=True).load("train")) == 10


def test_one_flat_folder_is_divided(folder: Path) -> None:
    data = load(folder / "train", classes=["background", "cat"])
    assert data.train is not None
    assert (len(data.train), len(data.val), len(data.test)) == (7, 1, 2)


def test_grey_masks_saved_in_colour_are_read(folder: Path) -> None:
    for path in folder.glob("*/masks/*"):
        Image.open(path).convert("RGB").save(path)
    data = load(folder)
    assert data.train is not None
    assert data.train.class_counts().counts.tolist() == [9 * 96, 9 * 96]


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("background\nroad\nroad\n")
    with pytest.raises(ValueError, match="several classes road"):
        meaning(tmp_path)


def test_a_colour_of_two_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="colour #ff0000 is given for several classes, car among them"):
        MaskFiles([], ("road", "car"), colours={"road": "#ff0000", "car": [255, 0, 0]})
