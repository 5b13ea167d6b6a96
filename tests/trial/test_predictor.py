"""``cv_lab.load``: a checkpoint as a function of images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from torch import nn

import cv_lab
from cv_lab.data.pixels import ORIENTATION
from cv_lab.data.preprocess import Preprocessing
from cv_lab.tasks.classification import Classification
from cv_lab.trial.build import load_task
from cv_lab.trial.predictor import Predictor
from tests.conftest import PLAIN, TINY

Train = Callable[..., Path]


def checkpoint_of(study: Path) -> Path:
    (checkpoint,) = study.glob("*/checkpoints/best.ckpt")
    return checkpoint


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)


def test_a_classifier_takes_paths_pictures_and_pixels(train: Train, tmp_path: Path, pixels: np.ndarray) -> None:
    checkpoint = checkpoint_of(train(*TINY, *PLAIN))
    predict = cv_lab.load(checkpoint)
    assert predict.classes == load_task(checkpoint).classes

    exact = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)  # of the size of the network
    task = load_task(checkpoint)
    with torch.inference_mode():
        expected = task(task.preprocessing(torch.from_numpy(exact).permute(2, 0, 1)[None])).softmax(1)[0]
    np.testing.assert_allclose(predict(exact), expected, atol=1e-6)

    file = tmp_path / "photo.png"
    Image.fromarray(pixels).save(file)
    alone = predict(pixels)
    assert alone.shape == (8,)
    assert alone.sum() == pytest.approx(1, abs=1e-5)
    together = predict([file, str(file), Image.open(file), pixels] * 10)  # more than one batch
    assert len(together) == 40
    for probabilities in together:
        np.testing.assert_allclose(probabilities, alone, atol=1e-5)
    assert predict([]) == []


def test_a_segmenter_gives_probabilities_at_the_images_own_size(
    train: Train, tmp_path: Path, pixels: np.ndarray
) -> None:
    checkpoint = checkpoint_of(train("task=semantic_segmentation", "model.width=8", *TINY, *PLAIN))
    predict = cv_lab.load(checkpoint)
    file = tmp_path / "photo.png"
    Image.fromarray(pixels).save(file)
    whole = predict(pixels)
    assert whole.shape == (9, 60, 100)
    np.testing.assert_allclose(whole.sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(predict(file), whole, atol=1e-5)

    exact = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    task = load_task(checkpoint)
    with torch.inference_mode():
        expected = task(task.preprocessing(torch.from_numpy(exact).permute(2, 0, 1)[None])).softmax(1)[0]
    np.testing.assert_allclose(predict(exact), expected, atol=1e-5)


def test_mask_rcnn_gives_objects_at_the_images_own_size(train: Train, pixels: np.ndarray) -> None:
    tiny = (*TINY, "data.train_count=60", "data.test_count=4", "data.image_size=64", "model.backbone.width=8")
    predict = cv_lab.load(checkpoint_of(train("task=instance_segmentation", *tiny, *PLAIN)))
    found, again = predict([pixels, Image.fromarray(pixels)])
    assert len(found.scores) == len(found.classes) == len(found.boxes) > 0
    assert list(found.scores) == sorted(found.scores, reverse=True)
    assert all(rle.decode(mask).shape == (60, 100) for mask in found.masks)
    assert (found.boxes[:, :2] >= 0).all()
    np.testing.assert_array_equal(found.boxes, again.boxes)


def test_what_is_no_image_is_refused(train: Train, tmp_path: Path) -> None:
    predict = cv_lab.load(checkpoint_of(train(*TINY, *PLAIN)))
    (tmp_path / "text.png").write_text("not an image")
    for image, words in (
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((0, 8), np.uint8), "uint8 "),
        (np.zeros((3, 8, 8), np.uint8), "uint8 "),
        ([torch.zeros(8, 8, 3)], "Tensor"),
        (tmp_path / "text.png", "cannot be decoded"),
    ):
        with pytest.raises(ValueError, match=words):
            predict(image)
    with pytest.raises(FileNotFoundError, match="there is no image"):
        predict(tmp_path / "nowhere.png")


class Grey(nn.Module):
    """A network whose logits are the mean of the upper half and that of the lower."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([half.mean((1, 2, 3)) for half in images.chunk(2, dim=2)], 1)


@pytest.fixture
def halves() -> Predictor:
    """Probabilities that tell how bright the halves of an image are."""
    task = Classification(Grey, ("upper", "lower"), nn.CrossEntropyLoss(), lambda groups: None)  # type: ignore[arg-type, return-value]
    task.image_size, task.preprocessing = (8, 8), Preprocessing((0.5,) * 3, (0.25,) * 3)
    return Predictor(task.eval())


def test_pictures_in_memory_are_read_as_files_are(halves: Predictor, tmp_path: Path) -> None:
    """Upright by EXIF, of 16 bits scaled to 8, transparent ones on white; grey arrays as RGB ones."""
    grey = np.repeat([[0], [255]], 8, 1).repeat(4, 0).astype(np.uint8)
    expected = halves(np.stack([grey] * 3, 2))
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4, :, 3] = 255  # black above, nothing below
    pictures = {
        "turned.png": (Image.fromarray(grey[::-1].copy()), {"exif": exif}),
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 257), {}),
        "clear.png": (Image.fromarray(clear), {}),
    }
    np.testing.assert_array_equal(halves(grey), expected)
    for name, (picture, options) in pictures.items():
        picture.save(tmp_path / name, **options)
        np.testing.assert_allclose(halves(tmp_path / name), expected, err_msg=name)
        with Image.open(tmp_path / name) as opened:
            np.testing.assert_allclose(halves(opened), expected, err_msg=name)


def test_a_picture_of_the_callers_keeps_its_size(halves: Predictor, tmp_path: Path) -> None:
    Image.new("RGB", (640, 480)).save(tmp_path / "large.jpg")
    with Image.open(tmp_path / "large.jpg") as picture:
        halves(picture)
        assert picture.size == (640, 480)
