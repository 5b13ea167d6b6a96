"""Losses of logits and target, for images and for pixels.

All take logits, float (N, K) or (N, K, H, W), and a target: int64 classes of shape (N,) or (N, H, W). Those of
classification take float (N, K) class probabilities as well, as mixed images have. Pixels labelled `IGNORE` count in
none of them, and a batch without any other has a loss of 0 with a gradient of 0.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cv_lab.class_weights import WeightSpec

IGNORE = 255  # of pixels, after Pascal VOC; an image's label 255 is a class like others
NO_LABEL = -100  # torch's own mark, which no data holds


class CrossEntropy(nn.Module):
    """Cross entropy, averaged over samples or pixels, each counting as much as the weight of its true class.

    Args:
        class_weights: how the classes shall be weighed, see :func:`cv_lab.class_weights.class_weights`; by default
            they are not. The trial finds the weights in its training data; checkpoints hold them as `weight`, (K,).
        label_smoothing: share of the target spread evenly over all classes.
    """

    weight: Tensor | None

    def __init__(self, class_weights: WeightSpec = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.class_weights = class_weights
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", None)

    def make_room(self, num_classes: int) -> None:
        """Let `weight` exist, as ones, where weights are wanted, so that a checkpoint's can be loaded."""
        if self.class_weights is not None:
            self.weight = torch.ones(num_classes)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if target.is_floating_point():
            return F.cross_entropy(logits, target, self.weight, label_smoothing=self.label_smoothing)
        ignored = ignore_index(target)
        total = F.cross_entropy(
            logits, target, self.weight, ignore_index=ignored, reduction="sum", label_smoothing=self.label_smoothing
        )
        counted = target != ignored
        weight = counted if self.weight is None else self.weight[torch.where(counted, target, 0)] * counted
        return total / weight.sum().clamp(min=1e-6)  # 0, not NaN, where nothing counts


class FocalLoss(nn.Module):
    r"""Focal loss (Lin et al., 2017): :math:`-\sum_k t_k (1 - p_k)^\gamma \log p_k`, averaged over samples or pixels.

    Args:
        gamma: how strongly well-classified samples are discounted; 0 is cross entropy.
        label_smoothing: share of the target spread evenly over all classes.
    """

    def __init__(self, gamma: float = 2.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.gamma = gamma
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, dim=1)
        discounted = (1 - log_p.exp()) ** self.gamma * log_p
        classes = logits.shape[1]
        if target.is_floating_point():
            target = target * (1 - self.label_smoothing) + self.label_smoothing / classes
            return -(target * discounted).sum(1).mean()
        counted = target != ignore_index(target)
        hit = discounted.gather(1, torch.where(counted, target, 0)[:, None])[:, 0]
        losses = hit * (1 - self.label_smoothing) + discounted.sum(1) * (self.label_smoothing / classes)
        return -(losses * counted).sum() / counted.sum().clamp(min=1)


class TverskyLoss(nn.Module):
    r"""One minus the Tversky index (Salehi et al., 2017) over a batch, averaged over the classes in its truth.

    The index of a class is :math:`TP / (TP + \alpha FP + \beta FN)` with probabilities in place of decisions;
    :math:`\alpha = \beta = 1/2` makes it the Dice loss (Milletari et al., 2016). For pixels only.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives; above `alpha` it favours recall, of small objects say.
    """

    def __init__(self, alpha: float = 0.5, beta: float = 0.5) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        classes = logits.shape[1]
        counted = target != IGNORE
        labels = torch.where(counted, target, 0)
        p = logits.softmax(1) * counted[:, None]
        # Sums over the true pixels of each class without a one-hot copy of the logits' size.
        pixels = torch.bincount(labels[counted], minlength=classes)
        at_truth = p.gather(1, labels[:, None]).flatten()
        hits = torch.zeros_like(p[0, :, 0, 0]).index_add(0, labels.flatten(), at_truth)
        false_positives = p.sum((0, 2, 3)) - hits
        index = hits / (hits + self.alpha * false_positives + self.beta * (pixels - hits)).clamp(min=1e-6)
        present = pixels > 0
        return ((1 - index) * present).sum() / present.sum().clamp(min=1)


class LovaszLoss(nn.Module):
    """Lovász-softmax (Berman et al., 2018): a convex surrogate of one minus the IoU, of the batch's true classes.

    For pixels only. Sorting all pixels once a class makes it several times as slow as the others.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        counted = target != IGNORE
        labels = target[counted]
        if not len(labels):
            return logits.sum() * 0
        p = logits.softmax(1).movedim(1, -1)[counted]  # (P, K)
        losses = []
        for k in labels.unique().tolist():
            truth = (labels == k).float()
            errors, order = (truth - p[:, k]).abs().sort(descending=True)
            losses.append(errors @ _lovasz_gradient(truth[order]))
        return torch.stack(losses).mean()


def _lovasz_gradient(truth: Tensor) -> Tensor:
    """Gradient of the Lovász extension of the Jaccard loss; `truth` float (P,), sorted by falling error."""
    seen = truth.cumsum(0)
    jaccard = 1 - (truth.sum() - seen) / (truth.sum() + (1 - truth).cumsum(0))
    return torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])


class WeightedSum(nn.Module):
    """Several losses, each multiplied by its weight.

    Args:
        losses: by name.
        weights: by the same names.

    Raises:
        ValueError: if the names differ.
    """

    def __init__(self, losses: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if set(losses) != set(weights):
            raise ValueError(
                f"loss.losses names {', '.join(sorted(losses))} but loss.weights names {', '.join(sorted(weights))}: "
                "give each loss one weight"
            )
        self.losses = nn.ModuleDict(losses)
        self.weights = dict(weights)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return torch.stack([self.weights[name] * loss(logits, target) for name, loss in self.losses.items()]).sum()


def ignore_index(target: Tensor) -> int:
    """The label that does not count among integer targets: `IGNORE` for pixels, none for whole images."""
    return IGNORE if target.ndim > 1 else NO_LABEL
