"""torchvision's data sets by name: their splits, classes and images, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from cv_lab.data.torchvision_sets import TorchvisionImages

FAKE = {"size": 40, "image_size": [3, 8, 6], "num_classes": 3}


def country(root: Path, **counts: int) -> None:
    """Country211 in the layout in which torchvision keeps it; pixels of class k have the value 10 k."""
    for split, count in counts.items():
        for k, name in enumerate(("AD", "AE", "ZW")):
            folder = root / "country211" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.full((10, 10, 3), 100 * k, np.uint8)
                pixels[0, 0] = number  # so that no two are alike
                Image.fromarray(pixels).save(folder / f"{number}.png")


def data(root: Path, name: str = "Country211", **options: Any) -> TorchvisionImages:
    return TorchvisionImages(name, str(root), **{"image_size": 8, "download": False, "batch_size": 2} | options)


def test_splits_and_classes_are_those_of_the_class(tmp_path: Path) -> None:
    country(tmp_path, train=4, valid=2, test=3)
    images = data(tmp_path)
    images.prepare_data()
    images.setup()
    assert images.train is not None
    assert (len(images.train), len(images.val), len(images.test)) == (12, 6, 9)
    assert images.classes == ("AD", "AE", "ZW")
    for one in (images.train, images.val, images.test):
        for number in range(len(one)):
            assert one.images[number][:, 4, 4].tolist() == [100 * one.labels[number]] * 3
    assert next(iter(images.train_dataloader()))["image"].shape == (2, 3, 8, 8)


def test_a_data_set_without_splits_is_divided(tmp_path: Path) -> None:
    images = data(tmp_path, "FakeData", arguments=FAKE, val_fraction=0.2, image_size=None)
    images.prepare_data()
    images.setup()
    assert images.train is not None
    assert (len(images.train), len(images.val), len(images.test)) == (27, 7, 6)
    assert images.classes == ("0", "1", "2")
    assert images.train.images.shape[1:] == (3, 64, 64)
    source = datasets.FakeData(**FAKE)
    whole = data(tmp_path, "FakeData", arguments=FAKE).load("train")
    assert whole.labels.tolist() == [source[number][1] for number in range(40)]
    assert data(tmp_path, "FakeData", arguments=FAKE).fingerprint() == images.fingerprint()
    assert data(tmp_path, "FakeData", arguments={**FAKE, "random_offset": 1}).fingerprint() != images.fingerprint()


def test_pixels_are_kept_and_read_anew_after_changes(tmp_path: Path) -> None:
    country(tmp_path, train=2, valid=2, test=2)
    cache = tmp_path / "cache"
    first = data(tmp_path, cache_dir=str(cache)).load("train")
    kept = list(cache.rglob("*"))
    assert kept
    assert (data(tmp_path, cache_dir=str(cache)).load("train").images[:] == first.images[:]).all()
    assert list(cache.rglob("*")) == kept
    (tmp_path / "country211/train/AD/1.png").unlink()
    assert len(data(tmp_path, cache_dir=str(cache)).load("train")) == 5


def test_a_damaged_image_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    country(tmp_path, train=2, valid=2, test=2)
    (tmp_path / "country211/train/AD/1.png").write_bytes(b"x")
    assert data(tmp_path).load("train").labels.tolist() == [0, 1, 1, 2, 2]
    assert "1 damaged images (Country211, train, number 1:" in caplog.text


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("Flowers", {}, r"data\.name=Flowers .* give Flowers102"),
        ("wrap_dataset_for_transforms_v2", {}, "is not a data set of torchvision"),
        (7, {}, "is not a data set of torchvision"),
        ("CocoDetection", {}, r"cannot be made .*annFile.*data\.arguments"),
        ("FakeData", {"nonsense": 1}, r"cannot be made .*nonsense"),
        ("FakeData", {**FAKE, "size": 0}, "holds no images"),
        ("FakeData", {**FAKE, "num_classes": 1}, "has one class"),
    ],
)
def test_what_cannot_be_a_data_set_is_refused(tmp_path: Path, name: Any, arguments: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        data(tmp_path, name, arguments=arguments).load("train")


def test_other_targets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="instead of an image with the number of its class"):
        data(tmp_path, "FakeData", arguments={**FAKE, "target_transform": lambda label: label / 2}).load("train")


@pytest.mark.parametrize(("name", "download"), [("Flowers102", False), ("FER2013", True), ("MNIST", False)])
def test_files_that_are_not_there_are_told(tmp_path: Path, name: str, download: bool) -> None:
    with pytest.raises(FileNotFoundError, match=rf"{name} is not in .*data\.root.*data\.download=true"):
        data(tmp_path, name, download=download).prepare_data()
