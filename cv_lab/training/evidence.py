"""Results of a test for each image, from which intervals and comparisons are computed afterwards."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cv_lab.labels import IGNORE
from cv_lab.training.losses import full_precision
from cv_lab.training.metrics import Metric, classes_of, count_below

Arrays = dict[str, NDArray[Any]]


class ImageEvidence(Metric):
    """Collect values of each image over a split, in the order of the data set.

    Values stay on the device until :meth:`compute`, so that no step waits for a GPU.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[dict[str, Tensor]] = []  # no state, since torchmetrics gathers only tensors

    def update(self, batch: Mapping[str, Any], logits: Tensor) -> None:
        """Add the images of a batch, which holds "index", int64 (N,), and the truth."""
        self.parts.append({"index": batch["index"], **self.of_batch(batch, logits.detach())})

    @abstractmethod
    def of_batch(self, batch: Mapping[str, Any], logits: Tensor) -> dict[str, Tensor]:
        """The values of each image, (N, ...), by name."""

    def reset(self) -> None:
        super().reset()
        self.parts = []

    def compute(self) -> Arrays:
        """The values of all images of all processes, by name, with "index", int64 (N,), rising."""
        names = self.parts[0] if self.parts else {}
        own = {name: np.concatenate([part[name].cpu().numpy() for part in self.parts]) for name in names}
        each: list[Arrays] = [own]
        if dist.is_available() and dist.is_initialized():
            each = [{}] * dist.get_world_size()
            dist.all_gather_object(each, own)
        each = [arrays for arrays in each if arrays]  # a process may have had no image
        if not each:
            return {}
        _, order = np.unique(np.concatenate([arrays["index"] for arrays in each]), return_index=True)
        return {name: np.concatenate([arrays[name] for arrays in each])[order] for name in each[0]}


class ClassEvidence(ImageEvidence):
    """Of each image "truth" and "prediction", int64 (N,), "p_truth", "p_prediction" and "loss", float32 (N,).

    The loss is plain cross entropy: minus the logarithm of the probability of the truth.
    """

    def of_batch(self, batch: Mapping[str, Any], logits: Tensor) -> dict[str, Tensor]:
        log_p, truth = F.log_softmax(full_precision(logits), 1), batch["label"]
        prediction = classes_of(logits)
        of_truth, of_prediction = (log_p.gather(1, k[:, None])[:, 0] for k in (truth, prediction))
        values = {"p_truth": of_truth.exp(), "p_prediction": of_prediction.exp(), "loss": -of_truth}
        return {"truth": truth, "prediction": prediction} | {name: v.float() for name, v in values.items()}


class LabelEvidence(ImageEvidence):
    """Of each image "labels", uint8 (N, K), of 0 and 1, "probabilities", float32 (N, K), and "loss", float32 (N,).

    The loss is plain binary cross entropy, a mean over the labels.
    """

    def of_batch(self, batch: Mapping[str, Any], logits: Tensor) -> dict[str, Tensor]:
        raised, truth = full_precision(logits), batch["labels"]
        each = F.binary_cross_entropy_with_logits(raised, truth.to(raised.dtype), reduction="none")
        return {"labels": truth, "probabilities": raised.sigmoid().float(), "loss": each.mean(1).float()}


class PixelEvidence(ImageEvidence):
    """Of each image and class pixels, int64 (N, K): "intersection", "union", and "support", those of the truth.

    Unlabelled pixels count in none of them. The sums over all images give the IoU of each class.
    """

    def of_batch(self, batch: Mapping[str, Any], logits: Tensor) -> dict[str, Tensor]:
        truth, prediction, classes = batch["mask"], classes_of(logits), logits.shape[1]
        images = torch.arange(len(truth), device=truth.device)[:, None, None]

        def pixels(labels: Tensor, counted: Tensor) -> Tensor:
            bins = torch.where(counted, images * classes + labels, len(truth) * classes)
            return count_below(bins.flatten(), len(truth) * classes).view(len(truth), classes)

        labelled = truth != IGNORE
        intersection = pixels(truth, labelled & (truth == prediction))
        support, predicted = pixels(truth, labelled), pixels(prediction, labelled)
        return {"intersection": intersection, "union": support + predicted - intersection, "support": support}
