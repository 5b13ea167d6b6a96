"""Figures of multi-label classification, against known values."""

import math
import warnings

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multilabel_average_precision,
    multilabel_exact_match,
    multilabel_f1_score,
)

from cv_lab.labels import ClassCounts
from cv_lab.tasks.multilabel import balanced
from cv_lab.training.label_metrics import LabelMetrics, LabelScores


def scores(probabilities: list[list[float]], truth: list[list[int]]) -> dict[str, Tensor]:
    metric = LabelScores(len(truth[0]))
    metric.update(torch.tensor(probabilities), torch.tensor(truth, dtype=torch.uint8))
    return metric.compute()


def test_average_precision_is_scikit_learns() -> None:
    """The example of `sklearn.metrics.average_precision_score`: y_true [0, 0, 1, 1], y_score [0.1, 0.4, 0.35, 0.8]."""
    found = scores([[0.1], [0.4], [0.35], [0.8]], [[0], [0], [1], [1]])
    assert found["ap"].tolist() == pytest.approx([0.8333333])  # 1/2 * 1 + 1/2 * 2/3
    assert found["map"].item() == pytest.approx(0.8333333)
    assert found["ap"].shape == (1,)


def test_ties_count_at_once() -> None:
    """All four at one threshold: precision is 1/2 at the only recall, whatever their order."""
    assert scores([[0.3]] * 4, [[1], [0], [0], [1]])["ap"].tolist() == [0.5]


def test_labels_without_images_do_not_lower_the_mean() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scores([[0.9, 0.2, 0.8], [0.1, 0.3, 0.9]], [[1, 0, 1], [0, 0, 1]])
    assert found["ap"].tolist() == pytest.approx([1.0, math.nan, 1.0], nan_ok=True)
    assert found["map"].item() == 1.0
    assert found["f1"].tolist() == pytest.approx([1.0, math.nan, 1.0], nan_ok=True)
    assert found["f1_macro"].item() == 1.0


def test_f1_by_hand() -> None:
    """Label 0: 1 hit, 1 miss; label 1: 1 hit, 1 false alarm; label 2: 1 false alarm."""
    found = scores([[0.9, 0.9, 0.6], [0.5, 0.6, 0.1]], [[1, 1, 0], [1, 0, 0]])
    assert found["f1"].tolist() == pytest.approx([2 / 3, 2 / 3, 0.0])
    assert found["f1_macro"].item() == pytest.approx(4 / 9)
    assert found["f1_micro"].item() == pytest.approx(2 * 2 / (4 + 3))


def test_figures_of_batches_equal_torchmetrics_over_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 8 * torch.randn(60, 5, generator=generator)
    truth = (torch.rand(60, 5, generator=generator) < 0.3).to(torch.uint8)
    metrics = LabelMetrics(5)
    # The first batch of logits lies within 0..1, where torchmetrics takes logits for probabilities.
    logits[:20] = logits[:20].sigmoid()
    for some, labels in zip(logits.split(20), truth.split(20), strict=True):
        metrics.update(torch.tensor(1.0), some, labels)
    p, found = logits.double().sigmoid(), metrics.scores.compute()
    whole = truth.long()
    torch.testing.assert_close(found["ap"], multilabel_average_precision(p, whole, 5, average=None).float())
    torch.testing.assert_close(found["map"], multilabel_average_precision(p, whole, 5).float())
    torch.testing.assert_close(found["f1_micro"], multilabel_f1_score(p, whole, 5, average="micro"))
    torch.testing.assert_close(found["f1_macro"], multilabel_f1_score(p, whole, 5, average="macro"))
    torch.testing.assert_close(metrics.exact.compute(), multilabel_exact_match(p, whole, 5))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth.float())
    torch.testing.assert_close(metrics.losses()["cross_entropy"], expected)


def test_sure_predictions_keep_their_order() -> None:
    """In float32, the sigmoid of 20 is 1, as that of 25 is."""
    metrics = LabelMetrics(1)
    metrics.update(torch.tensor(0.0), torch.tensor([[20.0], [25.0]]), torch.tensor([[0], [1]], dtype=torch.uint8))
    assert metrics.scores.compute()["ap"].tolist() == [1.0]


def test_positive_weights_of_labels_that_none_or_all_have() -> None:
    counts = ClassCounts(torch.tensor([1, 0, 4, 2]).numpy(), torch.tensor([4, 4, 4, 4]).numpy())
    assert balanced(counts).tolist() == [3.0, 1.0, 1.0, 1.0]
