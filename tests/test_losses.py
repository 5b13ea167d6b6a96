import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cv_lab.losses import IGNORE, CrossEntropy, FocalLoss, LovaszLoss, TverskyLoss, WeightedSum


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(8, 5), torch.randint(0, 5, (8,))
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(logits, target, label_smoothing=smoothing)
        assert FocalLoss(0.0, smoothing)(logits, target).item() == pytest.approx(expected.item(), rel=1e-5)


def test_focal_loss_discounts_what_is_already_right() -> None:
    logits = torch.tensor([[4.0, 0.0], [0.0, 0.1]])
    target = torch.tensor([0, 0])
    easy, hard = (FocalLoss(2.0)(logits[i : i + 1], target[i : i + 1]) for i in (0, 1))
    p = logits.softmax(1)[:, 0]
    assert easy.item() == pytest.approx((-((1 - p[0]) ** 2) * p[0].log()).item(), rel=1e-4)
    assert hard.item() == pytest.approx((-((1 - p[1]) ** 2) * p[1].log()).item(), rel=1e-4)


def test_focal_loss_takes_class_probabilities() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(6, 3), torch.randint(0, 3, (6,))
    one_hot = F.one_hot(target, 3).float()
    assert torch.allclose(FocalLoss()(logits, target), FocalLoss()(logits, one_hot))


# Losses of pixels.


def dense(seed: int = 0, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, K, 6, 6) and a mask (2, 6, 6) with some unlabelled pixels."""
    torch.manual_seed(seed)
    logits, mask = torch.randn(2, classes, 6, 6), torch.randint(0, classes, (2, 6, 6))
    mask[0, :2] = IGNORE
    return logits, mask


LOSSES = {
    "cross entropy": CrossEntropy(label_smoothing=0.1),
    "focal": FocalLoss(label_smoothing=0.1),
    "dice": TverskyLoss(),
    "tversky": TverskyLoss(0.3, 0.7),
    "lovasz": LovaszLoss(),
    "sum": WeightedSum({"a": CrossEntropy(), "b": TverskyLoss()}, {"a": 1.0, "b": 0.5}),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_unlabelled_pixels_change_no_loss_and_get_no_gradient(loss: nn.Module) -> None:
    logits, mask = dense()
    changed = logits.clone()
    changed[0, :, :2] += 7 * torch.randn(4, 2, 6)
    assert torch.allclose(loss(logits, mask), loss(changed, mask))
    logits.requires_grad_()
    loss(logits, mask).backward()
    assert logits.grad is not None
    assert torch.all(logits.grad[0, :, :2] == 0)
    assert torch.all(logits.grad[1].abs().sum(0) > 0)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_batch_without_labels_costs_nothing(loss: nn.Module) -> None:
    logits = torch.randn(2, 4, 6, 6, requires_grad=True)
    value = loss(logits, torch.full((2, 6, 6), IGNORE))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert torch.all(logits.grad == 0)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_perfect_prediction_costs_next_to_nothing(loss: nn.Module) -> None:
    _, mask = dense()
    logits = 40 * F.one_hot(torch.where(mask == IGNORE, 0, mask), 4).movedim(-1, 1).float()
    unsmoothed = FocalLoss() if isinstance(loss, FocalLoss) else CrossEntropy()
    loss = unsmoothed if getattr(loss, "label_smoothing", 0) else loss
    assert loss(logits, mask).item() < 1e-4


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs_with_and_without_weights(smoothing: float) -> None:
    logits, mask = dense()
    ours = CrossEntropy(class_weights="median_frequency", label_smoothing=smoothing)
    ours.make_room(4)
    ours.weight = torch.tensor([0.1, 1.0, 2.0, 3.0])
    theirs = F.cross_entropy(logits, mask, ours.weight, ignore_index=IGNORE, label_smoothing=smoothing)
    assert ours(logits, mask).item() == pytest.approx(theirs.item(), rel=1e-5)
    images, labels = torch.randn(8, 300), torch.full((8,), 255)
    labels[0] = 3
    plain = CrossEntropy(label_smoothing=smoothing)(images, labels)  # an image's label 255 is a class
    assert plain.item() == pytest.approx(F.cross_entropy(images, labels, label_smoothing=smoothing).item(), rel=1e-5)
    soft = torch.rand(8, 300).softmax(1)
    assert torch.allclose(CrossEntropy()(images, soft), F.cross_entropy(images, soft))


def test_focal_loss_of_pixels_is_that_of_as_many_images() -> None:
    logits, mask = dense()
    counted = mask != IGNORE
    assert torch.allclose(
        FocalLoss(2.0, 0.1)(logits, mask), FocalLoss(2.0, 0.1)(logits.movedim(1, -1)[counted], mask[counted])
    )


def test_tversky_loss_is_its_formula_and_dice_at_a_half() -> None:
    logits, mask = dense()
    p, counted = logits.softmax(1), mask != IGNORE
    scores = []
    for k in range(4):
        truth, guess = (mask == k)[counted].float(), p[:, k][counted]
        tp, fp, fn = (truth * guess).sum(), ((1 - truth) * guess).sum(), (truth * (1 - guess)).sum()
        scores.append(tp / (tp + 0.3 * fp + 0.7 * fn))
        assert (2 * tp / (2 * tp + fp + fn)).item() == pytest.approx((tp / (tp + 0.5 * fp + 0.5 * fn)).item())
    assert TverskyLoss(0.3, 0.7)(logits, mask).item() == pytest.approx(1 - torch.stack(scores).mean().item(), rel=1e-5)


def test_lovasz_loss_is_that_of_smp() -> None:
    from segmentation_models_pytorch.losses import LovaszLoss as Theirs

    logits, mask = dense()
    assert LovaszLoss()(logits, mask).item() == pytest.approx(
        Theirs("multiclass", ignore_index=IGNORE)(logits, mask).item(), rel=1e-5
    )


def test_a_weighted_sum_needs_a_weight_for_each_loss() -> None:
    with pytest.raises(ValueError, match=r"loss\.weights names a"):
        WeightedSum({"a": CrossEntropy(), "b": TverskyLoss()}, {"a": 1.0})
