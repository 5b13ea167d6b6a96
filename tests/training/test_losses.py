import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cv_lab.labels import IGNORE
from cv_lab.training.losses import CrossEntropy, FocalLoss, LovaszLoss, TverskyLoss, WeightedSum


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
    weight = torch.tensor([0.1, 1.0, 2.0, 3.0])
    ours = CrossEntropy(weight, smoothing)
    theirs = F.cross_entropy(logits, mask, weight, ignore_index=IGNORE, label_smoothing=smoothing)
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


# Reduced precision.


def weighted_cross_entropy() -> CrossEntropy:
    return CrossEntropy(torch.tensor([0.1, 1.0, 2.0, 3.0]), label_smoothing=0.1)


def many_pixels(spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (8, 4, 128, 128) in favour of the truth, and a mask of more pixels than float16 counts, mostly class 0."""
    torch.manual_seed(0)
    mask = torch.multinomial(torch.tensor([0.9, 0.06, 0.03, 0.01]), 8 * 128 * 128, replacement=True).view(8, 128, 128)
    logits = spread * (F.one_hot(mask, 4).movedim(-1, 1) + 0.3 * torch.randn(8, 4, 128, 128))
    mask[:, :8] = IGNORE
    return logits, mask


@pytest.mark.parametrize("spread", [3.0, 20.0, 1e4], ids=["unsure", "sure", "huge"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("loss", [*LOSSES.values(), weighted_cross_entropy()], ids=[*LOSSES, "weighted"])
def test_losses_of_reduced_precision_are_those_of_double(loss: nn.Module, dtype: torch.dtype, spread: float) -> None:
    logits, mask = many_pixels(spread)
    logits = logits.to(dtype)
    reference = logits.double().requires_grad_()
    expected = loss(reference, mask)
    expected.backward()
    logits.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(logits, mask)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    assert logits.grad is not None
    assert reference.grad is not None
    if isinstance(loss, LovaszLoss) and spread == 1e4:
        return  # among equal errors the order is arbitrary, and with it the gradient
    largest = reference.grad.abs().max().item()
    rounding = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1e-4}[dtype]
    # float16 holds no gradient below 6e-8 of a mean over so many pixels; scaling the loss is the trainer's part.
    torch.testing.assert_close(logits.grad.double(), reference.grad, rtol=0, atol=rounding * largest + 6e-8)


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_focal_loss_has_a_gradient_where_the_network_is_certain(gamma: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[0.0, -1e4], [-1e4, 1e4], [0.0, -20.0], [3.0, 1.0]], dtype=dtype, requires_grad=True)
    target = torch.tensor([0, 0, 0, 0])
    FocalLoss(gamma, 0.1)(logits, target).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    certain = torch.tensor([[0.0, -200.0]], dtype=torch.float64, requires_grad=True)
    FocalLoss(gamma)(certain, target[:1]).backward()
    assert certain.grad is not None
    assert certain.grad.abs().max() < 1e-20


def test_focal_gradients_are_right_below_a_gamma_of_1() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: FocalLoss(0.5, 0.1)(x, torch.tensor([0, 1, 2, 0, 1, 2])), (logits,))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses_wait_for_no_device(loss: nn.Module) -> None:
    """On "meta" there are no values to wait for: whatever asks for one raises."""
    logits = torch.empty(2, 4, 6, 6, device="meta", requires_grad=True)
    loss(logits, torch.empty(2, 6, 6, dtype=torch.long, device="meta")).backward()
    assert logits.grad is not None


def test_a_negative_gamma_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loss\.gamma=-1"):
        FocalLoss(-1)


def test_class_weights_normalise_mixed_images_too() -> None:
    torch.manual_seed(0)
    loss = weighted_cross_entropy()
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 0])
    soft = F.one_hot(labels, 4).float()
    assert loss(logits, soft).item() == pytest.approx(loss(logits, labels).item(), rel=1e-5)
    mixed = 0.3 * soft + 0.7 * soft.flip(0)
    assert loss.weight is not None
    t = 0.9 * mixed + 0.1 / 4
    expected = -(t * loss.weight * logits.log_softmax(1)).sum() / (mixed * loss.weight).sum()
    assert loss(logits, mixed).item() == pytest.approx(expected.item(), rel=1e-5)
    before = loss(logits, mixed)
    loss.weight = 7 * loss.weight
    assert loss(logits, mixed).item() == pytest.approx(before.item(), rel=1e-5)  # their scale is of no matter


def test_a_weighted_sum_needs_a_weight_for_each_loss() -> None:
    with pytest.raises(ValueError, match=r"loss\.weights names a"):
        WeightedSum({"a": CrossEntropy(), "b": TverskyLoss()}, {"a": 1.0})
