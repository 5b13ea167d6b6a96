"""Metrics of multi-label classification, where an image may have any number of labels."""

import torch
from torch import Tensor, nn
from torchmetrics.classification import MultilabelExactMatch
from torchmetrics.functional.classification import binary_average_precision
from torchmetrics.utilities.data import dim_zero_cat

from cv_lab.training.evidence import LabelEvidence
from cv_lab.training.losses import full_precision
from cv_lab.training.metrics import MeanLoss, Metric

THRESHOLD = 0.5  # a label is given if its probability exceeds this


class LabelScores(Metric):
    """Average precision and F1 of each label, from all probabilities of a split.

    Average precision is that of `sklearn.metrics.average_precision_score`: the sum over the thresholds of precision
    times the gain in recall, without interpolation. A label without a positive image has none and is NaN here;
    `torchmetrics.classification.MultilabelAveragePrecision` gives it 0, which lowers the mean, and refuses a single
    label. Both give probabilities to torchmetrics, never logits: it takes a batch of logits that happen to lie within
    0..1 for probabilities.

    Args:
        num_labels: K.
    """

    full_state_update = False
    probabilities: list[Tensor]
    truth: list[Tensor]

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("truth", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, truth: Tensor) -> None:
        """`probabilities`: float (N, K); `truth`: (N, K) of 0 and 1."""
        self.probabilities.append(probabilities)
        self.truth.append(truth)

    def compute(self) -> dict[str, Tensor]:
        """Scores of each label, float32 (K,), and of all together, scalars.

        "ap" and "f1" by label; "map" and "f1_macro", their means; "f1_micro", over all decisions. F1 is NaN for a label
        that is neither given nor true, and means leave out what is NaN.
        """
        probabilities, truth = dim_zero_cat(self.probabilities), dim_zero_cat(self.truth)
        given, true = probabilities > THRESHOLD, truth > 0
        hits, sizes = (given & true).sum(0), given.sum(0) + true.sum(0)
        f1 = 2 * hits / sizes
        ap = [
            binary_average_precision(probabilities[:, k], true[:, k].long(), validate_args=False).float()
            if true[:, k].any()
            else torch.tensor(torch.nan, device=truth.device)
            for k in range(self.num_labels)
        ]
        return {
            "ap": torch.stack(ap),
            "f1": f1.float(),
            "map": torch.stack(ap).nanmean(),
            "f1_macro": f1.float().nanmean(),
            "f1_micro": (2 * hits.sum() / sizes.sum()).float(),
        }


class LabelMetrics(nn.Module):
    """What multi-label classification counts over one split.

    Args:
        num_labels: K.
        training: leave out plain cross entropy, which is for comparing trials whose losses weigh labels differently.
        evidence: collects what is said of each image, of the test.
    """

    def __init__(self, num_labels: int, training: bool = False, evidence: LabelEvidence | None = None) -> None:
        super().__init__()
        self.loss = MeanLoss()
        self.cross_entropy = None if training else MeanLoss()
        self.scores = LabelScores(num_labels)
        self.evidence = evidence
        self.exact = MultilabelExactMatch(num_labels, THRESHOLD, validate_args=False)

    def update(self, loss: Tensor, logits: Tensor, truth: Tensor) -> None:
        """Count a batch.

        Args:
            loss: scalar, the mean over the batch.
            logits: float (N, K).
            truth: (N, K) of 0 and 1.
        """
        logits = full_precision(logits.detach())
        self.loss.update(loss, len(logits))
        if self.cross_entropy is not None:
            plain = nn.functional.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype))
            self.cross_entropy.update(plain, len(logits))
        # In double precision, where even logits of 30 keep their order.
        probabilities = logits.double().sigmoid()
        self.scores.update(probabilities, truth)
        self.exact.update(probabilities, truth)

    def losses(self) -> dict[str, Tensor]:
        """The mean losses of an epoch, by name."""
        plain = {} if self.cross_entropy is None else {"cross_entropy": self.cross_entropy.compute()}
        return {"loss": self.loss.compute(), **plain}
