"""Images with any number of labels each."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from cv_lab.data.augment import Batch
from cv_lab.data.in_memory import InMemoryImages, Pixels, _subset
from cv_lab.data.memory import send
from cv_lab.labels import ClassCounts


class LabelledImages(InMemoryImages):
    """Images whose batches carry "labels", uint8 (N, K) of 0 and 1.

    The inherited `labels` serve to balance splits: the rarest label of each image, or K for one without any. Splits
    that keep the shares of these keep those of rare labels to within one image, and of others nearly.

    Args:
        images: uint8 (N, C, H, W).
        label_sets: uint8 (N, K), 1 where an image has a label.
        classes: the K labels.
        rows: see :class:`~cv_lab.data.in_memory.InMemoryImages`.
    """

    stored: ClassVar[tuple[str, ...]] = ("images", "labels", "label_sets")

    def __init__(
        self, images: Pixels, label_sets: Tensor, classes: tuple[str, ...], rows: Tensor | None = None
    ) -> None:
        assert label_sets.shape == (len(images), len(classes))
        super().__init__(images, torch.zeros(len(images), dtype=torch.long), classes, rows)
        self.label_sets = label_sets
        self.labels = rarest_labels(label_sets)

    def __getitems__(self, indices: list[int]) -> Batch:
        index = send(torch.tensor(indices), self.labels.device)
        return {"image": self.images[index], "labels": self.label_sets[index], "index": index}

    def subset(self, indices: Any) -> "LabelledImages":
        index = torch.as_tensor(indices)
        return LabelledImages(_subset(self.images, index), self.label_sets[index], self.classes, self.rows[index])

    def class_counts(self) -> ClassCounts:
        """Images that have each label."""
        counts = self.label_sets.sum(0, dtype=torch.long)
        return ClassCounts(counts.numpy(), torch.full_like(counts, len(self)).numpy())


def rarest_labels(label_sets: Tensor) -> Tensor:
    """The label of each image that fewest images have, int64 (N,); K for an image without any."""
    classes = label_sets.shape[1]
    counts = label_sets.sum(0, dtype=torch.long)
    order = counts.argsort(stable=True)  # the rarest first
    ranked = label_sets[:, order]
    rarest = order[ranked.long().argmax(1)]  # argmax gives the first of equal values
    return torch.where(label_sets.bool().any(1), rarest, classes)
