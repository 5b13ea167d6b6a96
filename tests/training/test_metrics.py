"""Metrics equal torchmetrics' own."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from torchmetrics.classification import (
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MulticlassRecall,
)

from cv_lab.training.metrics import (
    ConfusionMatrix,
    MeanCrossEntropy,
    MeanLoss,
    SplitMetrics,
    accuracy,
    class_accuracy,
    classes_of,
    f1,
    frequency_weighted_iou,
    iou,
    mean_iou,
)
from tests.pretended_device import pretended_device


def test_confusion_matrix_equals_torchmetrics_and_leaves_out_ignored() -> None:
    torch.manual_seed(0)
    ours, theirs = ConfusionMatrix(4, ignore_index=255), MulticlassConfusionMatrix(4, ignore_index=255)
    for _ in range(3):
        predicted, truth = torch.randint(0, 4, (2, 8, 8)), torch.randint(0, 4, (2, 8, 8))
        truth[0, :2] = 255
        ours.update(predicted, truth)
        theirs.update(predicted, truth)
    assert torch.equal(ours.compute(), theirs.compute())


def test_one_class_keeps_its_axes() -> None:
    matrix = ConfusionMatrix(1)
    matrix.update(torch.zeros(3).long(), torch.zeros(3).long())
    counts = matrix.compute()
    assert counts.tolist() == [[3]]
    assert iou(counts).tolist() == class_accuracy(counts).tolist() == [1]
    assert accuracy(counts) == f1(counts) == mean_iou(counts) == frequency_weighted_iou(counts) == 1


def test_what_was_computed_stays_when_more_is_counted() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([0, 1]), torch.tensor([0, 1]))
    before = matrix.compute()
    matrix.update(torch.tensor([1]), torch.tensor([0]))
    assert before.tolist() == pickle.loads(pickle.dumps(before)).tolist() == [[1, 0], [0, 1]]
    assert matrix.compute().tolist() == pickle.loads(pickle.dumps(matrix)).compute().tolist() == [[1, 1], [0, 1]]


def test_a_class_cannot_be_ignored() -> None:
    with pytest.raises(ValueError, match="one of the 4 classes"):
        ConfusionMatrix(4, ignore_index=3)


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_plain_cross_entropy_is_that_of_double_whatever_the_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits, labels = (3 * torch.randn(50, 4, 64, 64)).to(dtype), torch.randint(0, 4, (50, 64, 64))
    labels[:, :10] = 255  # pixels that do not count, in some batches more than in others
    labels[20:, :30] = 255
    metrics = SplitMetrics(4, ignore_index=255).to(torch.bfloat16)  # a network of pure bfloat16 converts all in it
    with torch.autocast("cpu", torch.bfloat16):
        for x, y in zip(logits.split(20), labels.split(20), strict=True):
            metrics.update(x.sum() * 0 + 1000.1, x, y)
    expected = F.cross_entropy(logits.double(), labels, ignore_index=255).item()
    assert metrics.losses()["cross_entropy"].item() == pytest.approx(expected, rel=1e-6)
    assert metrics.losses()["cross_entropy"].dtype == torch.float32
    assert metrics.confusion.compute().sum() == (labels != 255).sum()
    right = (logits.double().argmax(1) == labels).sum()
    assert metrics.confusion.compute().diagonal().sum() == right


def test_plain_cross_entropy_counts_every_image_alike_and_knows_no_ignored_one() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(30, 300), torch.randint(0, 300, (30,))
    labels[:3] = 255  # a class like others
    metric = MeanCrossEntropy()
    for x, y in zip(logits.split(8), labels.split(8), strict=True):
        metric.update(x, y)
    assert metric.compute().item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)


def test_training_counts_no_plain_cross_entropy() -> None:
    metrics = SplitMetrics(3, training=True)
    metrics.update(torch.tensor(1.5), torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))
    assert set(metrics.losses()) == {"loss"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mean_loss_adds_in_double(dtype: torch.dtype) -> None:
    loss = MeanLoss()
    values = (100 + torch.rand(3000)).to(dtype)
    for value in values:
        loss.update(value, 129)
    assert loss.compute().item() == pytest.approx(values.double().mean().item(), rel=1e-6)


@pytest.mark.parametrize("absent", [False, True])
def test_iou_equals_torchmetrics_over_a_whole_split(absent: bool) -> None:
    torch.manual_seed(0)
    classes, ours = 6, ConfusionMatrix(6, ignore_index=255)
    theirs = {a: MulticlassJaccardIndex(6, average=a, ignore_index=255) for a in (None, "macro", "weighted")}
    for _ in range(4):
        predicted, truth = torch.randint(0, classes - absent, (2, 3, 16, 16))
        truth[torch.rand(truth.shape) < 0.1] = 255
        ours.update(predicted, truth)
        for metric in theirs.values():
            metric.update(predicted, truth)
    counts = ours.compute()
    assert torch.allclose(iou(counts).nan_to_num(), theirs[None].compute(), atol=1e-6)
    assert mean_iou(counts).item() == pytest.approx(theirs["macro"].compute().item(), abs=1e-6)
    assert frequency_weighted_iou(counts).item() == pytest.approx(theirs["weighted"].compute().item(), abs=1e-6)
    assert iou(counts)[-1].isnan().item() == absent


def test_mean_iou_leaves_out_absent_classes_and_the_background() -> None:
    counts = torch.tensor([[6, 2, 0], [0, 2, 0], [0, 0, 0]])  # the last class is nowhere
    assert mean_iou(counts).item() == pytest.approx((6 / 8 + 2 / 4) / 2)
    assert mean_iou(counts, without=0).item() == pytest.approx(2 / 4)
    predicted = torch.tensor([[6, 2, 1], [0, 2, 0], [0, 0, 0]])  # predicted where it is not: its IoU is 0
    assert mean_iou(predicted, without=0).item() == pytest.approx((2 / 4 + 0) / 2)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_classes_of_is_argmax(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 8, 8).contiguous(memory_format=memory_format)
    assert torch.equal(classes_of(logits), logits.argmax(1))


def test_on_a_device_the_counts_are_the_same_without_a_wait() -> None:
    torch.manual_seed(0)
    predicted, truth = torch.randint(0, 4, (2, 8, 8)), torch.randint(0, 4, (2, 8, 8))
    truth[0, :2] = 255
    cpus = ConfusionMatrix(4, ignore_index=255)
    cpus.update(predicted, truth)
    with pretended_device() as waits:
        devices = ConfusionMatrix(4, ignore_index=255).to("gpu")
        predicted, truth = predicted.to("gpu"), truth.to("gpu")
        waits.clear()
        devices.update(predicted, truth)
        assert not waits
        assert torch.equal(devices.compute().cpu(), cpus.compute())
