"""Losses of logits and target, for images and for pixels.

All take logits, float (N, K) or (N, K, H, W), and a target: int64 classes of shape (N,) or (N, H, W). Those of
classification take float (N, K) class probabilities as well, as mixed images have. Pixels labelled `IGNORE` count in
none of them, and a batch without any other has a loss of 0 with a gradient of 0.

Logits of half precision are raised to float32 first, and so is the loss: a sum over pixels exceeds float16's range and
stops growing in bfloat16. Nothing here makes the processor wait for a GPU.

segmentation_models.pytorch has losses of the same names. They are not used because, on the same logits, its Dice loss
averages over absent classes too (0.641 where this gives 0.854), its focal loss is another one (0.34 against 2.09) and
NaN for a batch without labels, and its Lovasz loss raises an error there.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cv_lab.labels import IGNORE

NO_LABEL = -100  # torch's own mark, which no data holds


class CrossEntropy(nn.Module):
    """Cross entropy, averaged over samples or pixels, each counting as much as the weight of its true class.

    The weight of a sample with class probabilities is the mean of the classes' weights under them, so that mixed images
    weigh between those that they were mixed of. (torch divides by the number of samples there, which makes the scale
    of the loss depend on the weights.)

    Args:
        weight: float (K,), of the classes; None weighs all alike. In a config it is given by `class_weights`, see
            :func:`cv_lab.training.class_weights.with_class_weights`. Checkpoints hold it.
        label_smoothing: share of the target spread evenly over all classes.
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        logits = full_precision(logits)
        weight = None if self.weight is None else self.weight.to(logits.dtype)
        smoothing, ignored = self.label_smoothing, ignore_index(target)
        if target.is_floating_point():
            target = target.to(logits.dtype)
            total = F.cross_entropy(logits, target, weight, reduction="sum", label_smoothing=smoothing)
            weights = target if weight is None else target * weight
        else:
            total = F.cross_entropy(
                logits, target, weight, ignore_index=ignored, reduction="sum", label_smoothing=smoothing
            )
            counted = target != ignored
            weights = counted if weight is None else weight[torch.where(counted, target, 0)] * counted
        return total / weights.sum().clamp(min=1e-6)  # 0, not NaN, where nothing counts


class FocalLoss(nn.Module):
    r"""Focal loss (Lin et al., 2017): :math:`-\sum_k t_k (1 - p_k)^\gamma \log p_k`, averaged over samples or pixels.

    Args:
        gamma: how strongly well-classified samples are discounted; 0 is cross entropy.
        label_smoothing: share of the target spread evenly over all classes.

    Raises:
        ValueError: if `gamma` is negative.
    """

    def __init__(self, gamma: float = 2.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError(f"loss.gamma={gamma} must not be negative: give 0 for cross entropy, or more")
        self.gamma = gamma
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        logits = full_precision(logits)
        log_p = F.log_softmax(logits, dim=1)
        # 1 - p without cancellation, and not 0, where its power has an infinite slope for a gamma below 1.
        rest = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
        discounted = rest**self.gamma * log_p
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
        p = full_precision(logits).softmax(1)
        truth = truth_of_each_class(target, logits.shape[1])
        pixels = truth.sum((0, 2, 3))
        hits = (p * truth).sum((0, 2, 3))
        false_positives = (p * (target != IGNORE)[:, None]).sum((0, 2, 3)) - hits
        index = hits / (hits + self.alpha * false_positives + self.beta * (pixels - hits)).clamp(min=1e-6)
        present = pixels > 0
        return ((1 - index) * present).sum() / present.sum().clamp(min=1)


class LovaszLoss(nn.Module):
    """Lovász-softmax (Berman et al., 2018): a convex surrogate of one minus the IoU, of the batch's true classes.

    For pixels only. It sorts all pixels once per class, which makes it several times as slow as the others.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        p = full_precision(logits).softmax(1).movedim(1, 0).flatten(1)  # (K, P)
        truth = truth_of_each_class(target, len(p)).movedim(1, 0).flatten(1)
        counted, present = (target != IGNORE).flatten(), truth.any(1)
        # On a CPU, sort only for classes that occur; on a GPU, learning which these are would mean waiting for it.
        classes = present.nonzero().flatten().tolist() if present.is_cpu else range(len(p))
        total = p.sum() * 0  # has a gradient, also for a batch without labels
        for k in classes:
            # Ignored pixels are sorted behind all others, where they do not change the gradient of any.
            errors = torch.where(counted, (truth[k].to(p.dtype) - p[k]).abs(), -1)
            errors, order = errors.sort(descending=True)
            total = total + (errors.clamp(min=0) * _lovasz_gradient(truth[k][order]).to(p.dtype)).sum() * present[k]
        return total / present.sum().clamp(min=1)


def _lovasz_gradient(truth: Tensor) -> Tensor:
    """Gradient of the Lovász extension of the Jaccard loss, double (P,); `truth` bool (P,), sorted by falling error."""
    total = truth.sum()
    jaccard = 1 - (total - truth.cumsum(0)).double() / (total + (~truth).cumsum(0))
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
    """Return the label that does not count among integer targets: `IGNORE` for pixels, none for whole images."""
    return IGNORE if target.ndim > 1 else NO_LABEL


def full_precision(logits: Tensor) -> Tensor:
    """Convert `logits` to float32; float64 stays as it is."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def log_of(probabilities: Tensor) -> Tensor:
    """The logarithm of `probabilities`, finite also for 0."""
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()


def truth_of_each_class(target: Tensor, classes: int) -> Tensor:
    """Return which pixels of `target`, int64 (N, H, W), are of each class: bool (N, K, H, W)."""
    return target[:, None] == torch.arange(classes, device=target.device)[:, None, None]
