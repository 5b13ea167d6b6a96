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


def test_a_file_that_is_no_image_is_named(root: Path) -> None:
    (root / "train/red/broken.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be decoded"):
        ImageFolder(str(root)).load("train")


def test_a_truncated_image_is_named(root: Path) -> None:
    whole = (root / "train/red/0.png").read_bytes()
    (root / "train/red/0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"0\.png cannot be decoded"):
        ImageFolder(str(root)).load("train")


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
    (tmp_path / "train/red").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no images"):
        ImageFolder(str(tmp_path)).load("train")
