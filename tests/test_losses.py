import pytest
import torch
import torch.nn.functional as F

from cv_lab.losses import FocalLoss


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
