"""Losses that torch does not have. Torch's own are named in ``conf/loss`` directly."""

import torch.nn.functional as F
from torch import Tensor, nn


class FocalLoss(nn.Module):
    r"""Focal loss (Lin et al., 2017): :math:`-\sum_k t_k (1 - p_k)^\gamma \log p_k`, averaged over the batch.

    Args:
        gamma: how strongly well-classified samples are discounted; 0 is cross entropy.
        label_smoothing: share of the target spread evenly over all classes.
    """

    def __init__(self, gamma: float = 2.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.gamma = gamma
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """`logits` float (N, K); `target` int64 (N,) of classes or float (N, K) of class probabilities."""
        classes = logits.shape[1]
        if target.ndim == 1:
            target = F.one_hot(target, classes)
        target = target * (1 - self.label_smoothing) + self.label_smoothing / classes
        log_p = F.log_softmax(logits, dim=1)
        return -(target * (1 - log_p.exp()) ** self.gamma * log_p).sum(1).mean()
