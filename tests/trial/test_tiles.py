"""Large images, predicted tile by tile."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cv_lab.data.preprocess import Preprocessing
from cv_lab.tasks.instance_segmentation import InstanceSegmentation
from cv_lab.tasks.semantic_segmentation import SemanticSegmentation
from cv_lab.trial.predictor import predict_batch
from cv_lab.trial.tiles import once, open_whole, predict_tiles, starts_of, weights_of


def task_of(kind: Any, predict: Any, size: tuple[int, int]) -> Any:
    """A task that predicts by a function of normalised images."""

    class Fake(kind):
        def __init__(self) -> None:
            nn.Module.__init__(self)

    fake = Fake()
    fake.predict, fake.image_size, fake.fit = predict, size, "pad"
    fake.preprocessing = Preprocessing((0.0,) * 3, (1.0,) * 3)
    return fake


def saved(pixels: np.ndarray, folder: Path) -> Path:
    Image.fromarray(pixels).save(folder / "large.png")
    return folder / "large.png"


@pytest.mark.parametrize("size", [(100, 141), (33, 32), (20, 90), (32, 32)])
def test_a_network_that_sees_little_gives_the_same_in_tiles(size: tuple[int, int], tmp_path: Path) -> None:
    """The receptive field of 5 pixels lies within the margin of a tile of 32 that does not count."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1), nn.Softmax(1))
    task = task_of(SemanticSegmentation, lambda images: network(images), (32, 32))
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    photo = open_whole(saved(pixels, tmp_path))
    found = predict_tiles(task, photo, 32)
    expected = predict_batch(task, [photo])
    if size[0] >= 32:
        torch.testing.assert_close(found, expected)
    else:  # tiles have plain ground below the image, which the whole image has not
        torch.testing.assert_close(found[:, :, :18], expected[:, :, :18])


def test_tiles_are_scaled_as_images_are(tmp_path: Path) -> None:
    task = task_of(SemanticSegmentation, lambda images: torch.stack([images[:, 0], 1 - images[:, 0]], 1), (16, 16))
    pixels = np.zeros((96, 64, 3), np.uint8)
    pixels[:48] = 255
    found = predict_tiles(task, open_whole(saved(pixels, tmp_path)), 32)
    assert found.shape == (1, 2, 96, 64)
    torch.testing.assert_close(found[0, 0, :44], torch.ones(44, 64))
    torch.testing.assert_close(found[0, 1, 52:], torch.ones(44, 64))


@pytest.mark.parametrize(("length", "side"), [(512, 512), (513, 512), (1000, 512), (4000, 512), (97, 32), (5, 32)])
def test_tiles_cover_an_image_and_overlap(length: int, side: int) -> None:
    starts, tile = starts_of(length, side), min(side, length)
    assert (starts[0], starts[-1] + tile) == (0, length)
    steps = np.diff(starts)
    assert len(starts) == 1 or (steps > 0).all()
    assert (steps <= np.ceil(0.75 * side)).all()
    total = np.zeros(length)
    for start, weight in zip(starts, weights_of(starts, length, side), strict=True):
        total[start : start + tile] += weight
        assert start == 0 or weight[: side // 16].max() == 0  # where a tile begins within the image
    assert total.min() > 0.99


def rectangles_in(images: Tensor) -> list[dict[str, Tensor]]:
    """Detections of a perfect network: the box of the pixels of each channel that are bright."""
    found = []
    for image in images:
        boxes, labels = [], []
        for channel, bright in enumerate(image > 0.5):
            rows, columns = bright.any(1).nonzero().flatten(), bright.any(0).nonzero().flatten()
            if len(rows):
                boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
                labels.append(channel)
        count = len(boxes)
        found.append(
            {
                "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(count, 4),
                "labels": torch.tensor(labels, dtype=torch.long),
                "scores": torch.full((count,), 0.9),
                "masks": torch.ones(count, 4, 4),
            }
        )
    return found


@pytest.mark.parametrize("scale", [1, 2])
def test_objects_in_several_tiles_are_found_once(scale: int, tmp_path: Path) -> None:
    task = task_of(InstanceSegmentation, rectangles_in, (32 * scale, 32 * scale))
    pixels = np.zeros((80, 100, 3), np.uint8)
    pixels[20:28, 30:37, 0] = 255  # smaller than the overlap of tiles: some tile has all of it
    pixels[50:56, 60:68, 1] = 255
    (found,) = predict_tiles(task, open_whole(saved(pixels, tmp_path)), 32)
    assert found["labels"].tolist() == [0, 1]
    expected = [[30.0, 20, 37, 28], [60, 50, 68, 56]]
    torch.testing.assert_close(found["boxes"], torch.tensor(expected), atol=1.0, rtol=0)
    rows, words = task_rows(task, found, (80, 100), tmp_path)
    assert words == "2 objects"
    assert [row["bbox"] for row in rows] == found_boxes(found)


def task_rows(task: Any, found: dict[str, Tensor], size: tuple[int, int], folder: Path) -> Any:
    task.classes = ("a", "b", "c")
    return task.write(open_whole(folder / "large.png"), [found], folder, "large_found", 0.5)


def found_boxes(found: dict[str, Tensor]) -> list[list[float]]:
    return [[x, y, right - x, bottom - y] for x, y, right, bottom in found["boxes"].tolist()]


def test_a_whole_box_is_kept_before_one_that_is_cut() -> None:
    boxes = torch.tensor([[10.0, 10, 20, 20], [10, 10, 14, 20], [11, 10, 20, 20], [10, 10, 20, 20], [12, 12, 15, 15]])
    labels = torch.tensor([0, 0, 0, 1, 0])
    scores = torch.tensor([0.6, 0.9, 0.7, 0.5, 0.8])
    tile = torch.tensor([0, 1, 2, 1, 0])
    cut = torch.tensor([False, True, False, False, False])
    # The second is a part of the third; the first and third are one, of which the third scores higher; the fourth is of
    # another class; the last, small one is an object of its own, for it is not cut and of the first one's tile.
    assert once(boxes, labels, scores, tile, cut).tolist() == [4, 2, 3]
    assert once(boxes[:0], labels[:0], scores[:0], tile[:0], cut[:0]).tolist() == []


def test_a_large_object_that_is_cut_is_not_lost_to_a_small_one_before_it() -> None:
    boxes = torch.tensor([[0.0, 0, 100, 100], [10, 10, 60, 60], [40, 0, 100, 100]])
    cut = torch.tensor([True, False, True])
    # A person before another one; the last is a part of the first, seen from another tile.
    kept = once(boxes, torch.zeros(3), torch.tensor([0.95, 0.9, 0.8]), torch.tensor([0, 1, 2]), cut)
    assert kept.tolist() == [0, 1]


def test_what_scores_too_low_replaces_nothing(tmp_path: Path) -> None:
    """The right tile sees the whole object, but doubts it: what the left one sees of it, and is sure of, stays."""

    def predict(images: Tensor) -> list[dict[str, Tensor]]:
        found = rectangles_in(images)
        for one in found:
            whole = one["boxes"][:, 2] - one["boxes"][:, 0] >= 7
            one["scores"] = torch.where(whole, 0.06, 0.99)
        return found

    task = task_of(InstanceSegmentation, predict, (32, 32))
    pixels = np.zeros((32, 56, 3), np.uint8)
    pixels[10:20, 26:33, 0] = 255
    photo = open_whole(saved(pixels, tmp_path))
    (sure,) = predict_tiles(task, photo, 32, 0.5)
    assert sure["boxes"].tolist() == [[26.0, 10.0, 32.0, 20.0]]
    (every,) = predict_tiles(task, photo, 32)
    assert every["boxes"].tolist() == [[26.0, 10.0, 33.0, 20.0]]
