"""Metrics equal torchmetrics' own."""

import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassF1Score, MulticlassRecall

from cv_lab.metrics import ConfusionMatrix, MeanLoss, accuracy, class_accuracy, f1


def test_confusion_matrix_equals_torchmetrics_and_leaves_out_ignored() -> None:
    torch.manual_seed(0)
    ours, theirs = ConfusionMatrix(4, ignore_index=255), MulticlassConfusionMatrix(4, ignore_index=255)
    for _ in range(3):
        predicted, truth = torch.randint(0, 4, (2, 8, 8)), torch.randint(0, 4, (2, 8, 8))
        truth[0, :2] = 255
        ours.update(predicted, truth)
        theirs.update(predicted, truth)
    assert torch.equal(ours.compute(), theirs.compute())


def test_scores_of_a_matrix_equal_torchmetrics() -> None:
    torch.manual_seed(0)
    predicted, truth = torch.randint(0, 5, (400,)), torch.randint(0, 5, (400,))
    matrix = ConfusionMatrix(5)
    matrix.update(predicted, truth)
    counts = matrix.compute()
    assert accuracy(counts).item() == pytest.approx((predicted == truth).float().mean().item())
    assert f1(counts).item() == pytest.approx(MulticlassF1Score(5)(predicted, truth).item())
    assert torch.allclose(class_accuracy(counts), MulticlassRecall(5, average=None)(predicted, truth))


def test_mean_loss_weighs_batches_by_their_samples() -> None:
    loss = MeanLoss()
    loss.update(torch.tensor(1.0), 30)
    loss.update(torch.tensor(4.0), 10)
    assert loss.compute().item() == pytest.approx(1.75)
