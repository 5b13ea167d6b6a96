import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from cv_lab.data.folder import ImageFolder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six red and six blue photographs of 40 x 30 pixels to train on, two of each to test."""
    for split, count in (("train", 6), ("test", 2)):
        for name, colour in (("blue", (0, 0, 200)), ("red", (200, 0, 0))):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (40, 30), colour).save(tmp_path / split / name / f"{number}.png")
    return tmp_path


def test_images_are_read_scaled_and_labelled(root: Path) -> None:
    data = ImageFolder(str(root), image_size=16, batch_size=2, val_fraction=0.5)
    data.setup()
    assert data.classes == ("blue", "red")
    assert data.test.images.shape == (4, 3, 16, 16)
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert data.test.images[3, :, 8, 8].tolist() == [200, 0, 0]
    assert data.val.labels.bincount().tolist() == [3, 3]


def test_kept_images_are_decoded_once_and_alike(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    plain = ImageFolder(str(root), image_size=16).load("train").images[:]
    for _ in range(2):
        caplog.clear()
        kept = ImageFolder(str(root), image_size=16, cache_dir=str(tmp_path / "cache")).load("train")
        assert torch.equal(kept.images[:], plain)
    assert "decoding" not in caplog.text
    Image.new("RGB", (50, 30), (0, 200, 0)).save(root / "train/red/0.png")
    changed = ImageFolder(str(root), image_size=16, cache_dir=str(tmp_path / "cache")).load("train")
    assert changed.images[6, :, 8, 8].tolist() == [0, 200, 0]


@pytest.mark.parametrize("cached", [True, False])
def test_files_that_cannot_be_used_are_dropped_counted_and_named(
    root: Path, tmp_path: Path, cached: bool, caplog: pytest.LogCaptureFixture
) -> None:
    whole = (root / "train/red/0.png").read_bytes()
    (root / "train/red/0.png").write_bytes(whole[: len(whole) // 2])
    (root / "train/red/broken.jpg").write_bytes(b"no image")
    (root / "train/red/b.heic").write_bytes(b"of a phone")
    (root / "train/blue/.ipynb_checkpoints").mkdir()
    Image.new("RGB", (9, 9)).save(root / "train/blue/.ipynb_checkpoints/0-checkpoint.png")
    (root / "train/blue/._0.png").write_bytes(b"of macOS")
    (root / "train/__MACOSX").mkdir()
    for _ in range(2):  # the second time the pixels come from the cache
        caplog.clear()
        data = ImageFolder(str(root), image_size=16, cache_dir=str(tmp_path / "cache") if cached else None)
        images = data.load("train")
        assert images.classes == ("blue", "red")
        assert images.labels.tolist() == [0] * 6 + [1] * 5
        assert images.images[6, :, 8, 8].tolist() == [200, 0, 0]
        assert re.search(r"dropped 1 files that are not images of a known format \(.*b\.heic\)", caplog.text)
        assert re.search(r"2 damaged image files \(.*0\.png cannot be .*broken\.jpg cannot be", caplog.text)
        dropped = [problem for problem in data.problems if problem["what"] == "dropped"]
        assert [problem["count"] for problem in dropped] == [1, 2]
    with pytest.raises(ValueError, match=r"broken\.jpg.*data\.strict=false"):
        ImageFolder(str(root), strict=True).load("train")


def test_a_class_of_damaged_images_is_refused(root: Path) -> None:
    for path in (root / "train/red").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="classes without images: red; none of their files can be used"):
        ImageFolder(str(root)).load("train")


def test_a_validation_set_of_its_own_is_used(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    shutil.copytree(root / "test", root / "Valid")
    data = ImageFolder(str(root), image_size=16)
    data.setup()
    assert data.train is not None
    assert (len(data.train), len(data.val), len(data.test)) == (12, 4, 4)
    assert not set(data.train.rows.tolist()) & set(data.val.rows.tolist())  # features are kept by row
    assert "own validation set" in caplog.text
    data = ImageFolder(str(root), image_size=16, validation="test")
    data.setup()
    assert data.val is data.test


@pytest.mark.parametrize("layout", ["classes alone", "training", "unlabelled test"])
def test_missing_sets_are_held_out(root: Path, layout: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    shutil.rmtree(root / "test")
    if layout == "unlabelled test":
        (root / "test").mkdir()
        Image.new("RGB", (9, 9)).save(root / "test/1.png")
    if layout == "training":
        (root / "train").rename(root / "Training")
    data = ImageFolder(str(root / "train" if layout == "classes alone" else root), image_size=16)
    data.setup()
    assert data.train is not None
    parts = [data.train, data.val, data.test]
    assert [part.labels.bincount().tolist() for part in parts] == [[4, 4], [1, 1], [1, 1]]
    assert sorted(row for part in parts for row in part.rows.tolist()) == list(range(12))
    assert "no test set: 15 % of the images (2) are held out" in caplog.text


@pytest.mark.parametrize("validation", ["split", "test"])
@pytest.mark.parametrize("sets", [("train", "test"), ("train",), ("train", "val", "test")])
def test_images_are_named_by_their_files(root: Path, sets: tuple[str, ...], validation: str) -> None:
    for number, path in enumerate(sorted(root.glob("*/*/*.png"))):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    if "test" not in sets:
        shutil.rmtree(root / "test")
    if "val" in sets:
        shutil.copytree(root / "train", root / "val")
    (root / "train/blue/0.png").write_bytes(b"damaged")
    data = ImageFolder(str(root), image_size=8, validation=validation)
    data.setup()
    for split in ("train", "val", "test"):
        shades = [Image.open(file).getpixel((0, 0))[0] for file in data.files_of(split)]  # type: ignore[index]
        assert getattr(data, split).images[:, 0, 0, 0].tolist() == shades
    assert len(shades) == (4 if "test" in sets else 2)


def test_numbers_sort_by_their_value(tmp_path: Path) -> None:
    for name in ("10", "9", "1b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / name / "0.png")
    assert ImageFolder(str(tmp_path)).load("train").classes == ("1b", "9", "10")


def test_one_class_is_refused(root: Path) -> None:
    shutil.rmtree(root / "train/red")
    with pytest.raises(ValueError, match=r"one class, blue: give data\.root"):
        ImageFolder(str(root)).load("train")


def test_links_to_folders_are_followed_once(root: Path, tmp_path: Path) -> None:
    (root / "train/red/loop").symlink_to(root / "train/red")
    (tmp_path / "more").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "more/0.png")
    (root / "train/red/more").symlink_to(tmp_path / "more")
    assert ImageFolder(str(root)).load("train").labels.tolist() == [0] * 6 + [1] * 7


def test_a_class_without_images_is_named(root: Path) -> None:
    (root / "train/green").mkdir()
    with pytest.raises(ValueError, match="classes without images: green"):
        ImageFolder(str(root)).load("train")


def test_missing_folders_and_unknown_classes_are_named(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.*data\.root/train"):
        ImageFolder(str(root / "nowhere")).load("train")
    (root / "test/green").mkdir()
    with pytest.raises(ValueError, match="green"):
        ImageFolder(str(root)).load("test")


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    for name in ("red", "blue"):
        (tmp_path / "train" / name).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no images"):
        ImageFolder(str(tmp_path)).load("train")


@pytest.mark.parametrize("names", [("training_set", "test_set"), ("seg_train", "seg_test"), ("train_images", "val2")])
def test_folders_called_like_sets_are_no_classes(root: Path, names: tuple[str, str]) -> None:
    for old, new in zip(("train", "test"), names, strict=True):
        (root / old).rename(root / new)
    with pytest.raises(ValueError, match=rf"{names[0]} and {names[1]}, which look like sets.*rename them to train and"):
        ImageFolder(str(root)).splits()


def test_classes_with_one_name_of_a_set_among_them_are_classes(tmp_path: Path) -> None:
    for name in ("freight_train", "bus", "train"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / name / "0.png")
    assert ImageFolder(str(tmp_path)).load("train").classes == ("bus", "freight_train", "train")


def test_folders_beside_the_sets_are_noted(root: Path) -> None:
    shutil.copytree(root / "test", root / "dev")
    data = ImageFolder(str(root), image_size=8)
    data.setup()
    noted = [problem["examples"] for problem in data.problems if problem["kind"].startswith("folders with images")]
    assert noted == [[str(root / "dev")]]
