"""What a test says of each image adds up to what it says of all."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cv_lab.files import read_json
from cv_lab.labels import IGNORE
from cv_lab.training.evidence import ClassEvidence, PixelEvidence
from tests.conftest import PLAIN, TINY

Train = Callable[..., Path]


@pytest.mark.parametrize(
    "overrides",
    [
        ("loss=weighted_cross_entropy", "label_smoothing=0.1"),
        (
            *("task=linear_probing", "model=timm", "model.name=test_resnet", "model.image_size=32", "weights=none"),
            *("lr=1e-2,1e-3", "-m", "cache_dir=${studies_dir}/cache"),
        ),
    ],
    ids=["network", "heads together"],
)
def test_images_add_up_to_the_metrics(train: Train, overrides: tuple[str, ...]) -> None:
    for path in train(*TINY, *PLAIN, *overrides).glob("*/result.json"):
        arrays, result = np.load(path.parent / "test.npz"), read_json(path)
        assert arrays["index"].tolist() == list(range(40))
        right = arrays["truth"] == arrays["prediction"]
        assert right.mean() == pytest.approx(result["metrics"]["test/accuracy"])
        assert arrays["loss"].mean() == pytest.approx(result["metrics"]["test/cross_entropy"], rel=1e-4)
        assert -np.log(arrays["p_truth"]) == pytest.approx(arrays["loss"], rel=1e-4, abs=1e-6)
        assert (arrays["p_truth"] == arrays["p_prediction"])[right].all()
        assert (arrays["p_truth"] <= arrays["p_prediction"]).all()
        with open(path.parent / "test.csv") as file:
            rows = list(csv.DictReader(file))
        losses = [float(row["loss"]) for row in rows]
        assert losses == sorted(losses, reverse=True)
        first = int(rows[0]["index"])
        assert rows[0]["truth"] == result["classes"][arrays["truth"][first]]
        assert rows[0]["prediction"] == result["classes"][arrays["prediction"][first]]


def test_pixels_add_up_to_the_metrics(train: Train) -> None:
    (folder,) = train(*TINY, *PLAIN, "task=semantic_segmentation", "model.width=4").iterdir()
    arrays, result = np.load(folder / "test.npz"), read_json(folder / "result.json")
    assert arrays["support"].shape == (40, len(result["classes"]))
    with np.errstate(invalid="ignore"):
        iou = arrays["intersection"].sum(0) / arrays["union"].sum(0)
    assert np.nanmean(iou) == pytest.approx(result["metrics"]["test/mean_iou"])
    with open(folder / "test.csv") as file:
        scores = [float(row["mean_iou"]) for row in csv.DictReader(file)]
    assert scores == sorted(scores)


@pytest.mark.parametrize("task", ["multilabel", "instance_segmentation"])
def test_labels_and_objects_leave_their_images(train: Train, task: str) -> None:
    small = ("model=small_mask_rcnn", "batch_size=8") if task == "instance_segmentation" else ()
    (folder,) = train(*TINY, f"task={task}", *small).iterdir()
    arrays, result = np.load(folder / "test.npz"), read_json(folder / "result.json")
    assert arrays["index"].tolist() == list(range(40))
    if task == "multilabel":
        assert arrays["loss"].mean() == pytest.approx(result["metrics"]["test/cross_entropy"], rel=1e-4)
        exact = ((arrays["probabilities"] > 0.5) == arrays["labels"]).all(1).mean()
        assert exact == pytest.approx(result["metrics"]["test/subset_accuracy"])
    else:
        assert (arrays["objects"] > 0).all()
        assert ((arrays["quality"] >= 0) & (arrays["quality"] <= 1)).all()
    with open(folder / "test.csv") as file:
        assert len(list(csv.DictReader(file))) == 40
    assert (folder / "predictions/worst.png").exists()


def test_evidence_of_pixels_is_counted_by_hand() -> None:
    evidence = PixelEvidence()
    truth = torch.tensor([[[0, 0], [1, IGNORE]], [[2, 2], [2, 2]]])
    predicted = torch.tensor([[[0, 1], [1, 1]], [[2, 2], [2, 0]]])
    logits = F.one_hot(predicted, 3).movedim(-1, 1).float()
    evidence.update({"index": torch.tensor([5, 2]), "mask": truth}, logits)
    arrays = evidence.compute()
    assert arrays["index"].tolist() == [2, 5]  # as in the data set
    assert arrays["intersection"].tolist() == [[0, 0, 3], [1, 1, 0]]
    assert arrays["union"].tolist() == [[1, 0, 4], [2, 2, 0]]
    assert arrays["support"].tolist() == [[0, 0, 4], [2, 1, 0]]


def test_a_new_test_forgets_the_old() -> None:
    evidence = ClassEvidence()
    batch = {"index": torch.tensor([1, 0]), "label": torch.tensor([0, 1])}
    for _ in range(2):
        evidence.reset()
        evidence.update(batch, torch.tensor([[2.0, 0.0], [1.0, 0.0]]))
    arrays = evidence.compute()
    assert arrays["prediction"].tolist() == [0, 0]
    assert arrays["p_truth"] == pytest.approx([1 - 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-2))])
    evidence.reset()
    assert evidence.compute() == {}
