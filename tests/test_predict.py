"""A trained trial says something of any image."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts import predict
from tests.conftest import PLAIN, TINY

Train = Callable[..., Path]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photograph of another size and shape than what is trained on."""
    path = tmp_path / "photos" / "holiday.jpg"
    path.parent.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def run(study: Path, photo: Path) -> Path:
    (checkpoint,) = study.glob("*/checkpoints/best.ckpt")
    out = study / "out"
    predict.main([str(checkpoint), str(photo.parent), "--out", str(out), "--score", "0"])
    return out


def test_a_classifier_gives_probabilities(train: Train, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(train(*TINY, *PLAIN), photo)
    (row,) = csv.DictReader((out / "predictions.csv").open())
    assert row.pop("image") == str(photo)
    predicted = row.pop("predicted")
    probabilities = {name: float(value) for name, value in row.items()}
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert max(probabilities, key=probabilities.__getitem__) == predicted
    assert f"holiday.jpg: {predicted} (" in capsys.readouterr().out


def test_a_segmenter_gives_masks(train: Train, photo: Path) -> None:
    out = run(train("task=semantic_segmentation", "model.width=8", *TINY, *PLAIN), photo)
    mask = np.asarray(Image.open(out / "holiday_mask.png"))
    assert mask.shape == (60, 100)  # its own size, though the network sees it in 32 x 32
    assert mask.max() < 9
    assert (out / "holiday.png").exists()


def test_mask_rcnn_gives_objects_at_the_images_own_size(train: Train, photo: Path) -> None:
    out = run(train("task=instance_segmentation", *TINY, "data.image_size=64", "model.backbone.width=8", *PLAIN), photo)
    found = json.loads((out / "detections.json").read_text())
    assert all(one["segmentation"]["size"] == [60, 100] for one in found)
    assert Image.open(out / "holiday.png").size == (480, 285)


@pytest.mark.parametrize(("images", "words"), [("nowhere.jpg", "there is no"), ("empty", "holds no images")])
def test_images_that_are_not_there(tmp_path: Path, images: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=words):
        predict.main(["any.ckpt", str(tmp_path / images)])
