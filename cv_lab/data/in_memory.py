"""The fast path for small images: a split lives as one uint8 tensor, and a batch is one indexing operation."""

import copy
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cv_lab.data.augment import Batch
from cv_lab.data.memory import copies_without_waiting, send
from cv_lab.data.packed import PackedPhotos
from cv_lab.labels import IGNORE, ClassCounts

COUNTED_AT_ONCE = 256  # masks
MOVED_AT_ONCE = 1024  # rows
MOST_LEFT_OUT = 0.1  # of the training images in an epoch
CPU = torch.device("cpu")
Order = Literal["shuffled", "balanced"]


class MappedRows:
    """Some rows of a tensor in a memory-mapped file; they are read when they are asked for.

    Args:
        source: (M, ...).
        rows: int64 (N,), the rows to show.
    """

    def __init__(self, source: Tensor, rows: Tensor) -> None:
        self.source, self.rows = source, rows
        self.shape, self.ndim, self.dtype = (len(rows), *source.shape[1:]), source.ndim, source.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Tensor:
        first, *others = index if isinstance(index, tuple) else (index,)
        return self.source[(self.rows[first], *others)]

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def subset(self, index: Tensor) -> "MappedRows":
        """The rows at `index`, int64 (K,), without reading them."""
        return MappedRows(self.source, self.rows[index])

    def to(self, device: torch.device) -> Tensor:
        """Read all rows into memory of `device`; its strides are those of a batch of rows."""
        parts = (self.source[rows] for rows in self.rows.split(MOVED_AT_ONCE))
        first = next(parts)
        whole = torch.empty_strided((len(self), *first.shape[1:]), first.stride(), dtype=self.dtype, device=device)
        whole[: len(first)] = first
        for number, part in enumerate(parts, start=1):
            whole[number * MOVED_AT_ONCE :][: len(part)] = part
        return whole


Pixels = Tensor | MappedRows | PackedPhotos


class InMemoryImages(Dataset[Batch]):
    """Images in memory with their labels, and with masks where pixels have classes.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,), from 0 to K - 1; beside masks they serve only to balance splits.
        classes: the K names.
        rows: int64 (N,), where each sample stood in the set that was loaded; by default 0 to N - 1.
        masks: uint8 (N, H, W), from 0 to K - 1, or 255 for pixels that do not count.

    Raises:
        ValueError: if a label is out of range.
    """

    stored: ClassVar[tuple[str, ...]] = ("images", "labels", "masks")  # what batches are taken from

    def __init__(
        self,
        images: Pixels,
        labels: Tensor,
        classes: tuple[str, ...],
        rows: Tensor | None = None,
        masks: Pixels | None = None,
    ) -> None:
        assert images.dtype == torch.uint8
        assert images.ndim == 4
        assert len(images) == len(labels)
        assert masks is None or (masks.dtype == torch.uint8 and masks.shape == (len(images), *images.shape[2:]))
        wrong = torch.nonzero((labels < 0) | (labels >= len(classes))).flatten()
        if len(wrong):
            raise ValueError(
                f"{len(wrong)} of {len(labels)} labels are out of range: image {wrong[0]} has label "
                f"{labels[wrong[0]]}, but there are {len(classes)} classes, 0 to {len(classes) - 1}"
            )
        self.images, self.labels, self.classes = images, labels, classes
        self.masks = masks
        self.rows = torch.arange(len(labels)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> Batch:
        """A whole batch at once; torch's loader calls this in place of one ``__getitem__`` a sample."""
        index = send(torch.tensor(indices), self.labels.device)
        batch = {"image": self.inputs(index), "label": self.labels[index], "index": index}
        if self.masks is not None:
            batch["mask"] = self.masks[index]
        return batch

    def inputs(self, index: Any) -> Tensor:
        """What batches carry as "image": the images at `index`."""
        return self.images[index]

    def subset(self, indices: Any) -> "InMemoryImages":
        """The samples at `indices`, int (M,), as a data set of its own."""
        index = torch.as_tensor(indices)
        masks = None if self.masks is None else _subset(self.masks, index)
        return InMemoryImages(_subset(self.images, index), self.labels[index], self.classes, self.rows[index], masks)

    def showing(self, images: Pixels) -> "InMemoryImages":
        """The same samples with `images` for their own."""
        shown = copy.copy(self)
        shown.images = images
        return shown

    @property
    def nbytes(self) -> int:
        """Bytes of what batches are taken from."""
        return sum(getattr(self, name).nbytes for name in self.stored if getattr(self, name) is not None)

    def to(self, device: torch.device) -> "InMemoryImages":
        """Return the same samples with their tensors in memory of `device`, where batches are then made."""
        moved = copy.copy(self)
        for name in self.stored:
            if (value := getattr(self, name)) is not None:
                setattr(moved, name, value.to(device))
        return moved

    def class_counts(self) -> ClassCounts:
        """Pixels of each class, or images where there are no masks; counted at the first call."""
        return self._counts

    @cached_property
    def _counts(self) -> ClassCounts:
        classes = len(self.classes)
        if self.masks is None:
            counts = torch.bincount(self.labels, minlength=classes)
            return ClassCounts(counts.numpy(), np.full(classes, len(self)))
        counts, totals = torch.zeros(2, classes, dtype=torch.long)
        parts = torch.arange(len(self)).split(COUNTED_AT_ONCE)
        for part in track(parts, "counting pixels", transient=True, disable=len(parts) < 8):
            bins = self.masks[part].flatten(1) + torch.arange(len(part))[:, None] * (IGNORE + 1)
            each = torch.bincount(bins.flatten(), minlength=len(part) * (IGNORE + 1)).view(len(part), -1)[:, :classes]
            counts += each.sum(0)
            totals += (each > 0).sum(0) * (bins.numel() // len(part))
        return ClassCounts(counts.numpy(), totals.numpy())


def _subset(pixels: Pixels, index: Tensor) -> Pixels:
    return pixels[index] if isinstance(pixels, Tensor) else pixels.subset(index)


class EpochSampler(Sampler[int]):
    """An order that is a function of seed and epoch alone, so that a continued trial sees what an unbroken one does.

    With `weights`, images are drawn by them, with replacement: some come several times in an epoch, others not at all.

    Several processes take the batches of one order in turn, so that a step of all of them sees what a step of one
    process with a batch of their sizes together would see. Each image comes at most once an epoch: those left over
    that do not make one more batch for every process are left out of it.

    Lightning calls :meth:`set_epoch`; `epoch` is for the first one, whose iterator Lightning makes before that call.

    Args:
        size: number of images.
        seed: of the order.
        epoch: the first.
        batch_size: of one process.
        rank: of this process.
        processes: that train one network.
        weights: float (size,), to which the chance of each image is proportional; None gives a permutation.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        epoch: int = 0,
        batch_size: int = 1,
        rank: int = 0,
        processes: int = 1,
        weights: Tensor | None = None,
    ) -> None:
        self.size, self.seed, self.batch_size, self.weights = size, seed, batch_size, weights
        self.rank, self.processes = rank, processes
        self.steps = size // (batch_size * processes)
        self.generator = torch.Generator()  # also seeds the loader's worker processes
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.generator.manual_seed(self.seed * 1_000_003 + epoch)

    def __len__(self) -> int:
        return self.steps * self.batch_size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.weights is None:
            order = torch.randperm(self.size, generator=generator)
        else:
            order = torch.multinomial(self.weights, self.size, replacement=True, generator=generator)
        order = order[: len(self) * self.processes]
        return iter(order.view(self.steps, self.processes, self.batch_size)[:, self.rank].flatten().tolist())


def train_batch_size(images: int, batch_size: int, processes: int = 1) -> int:
    """Return the size of training batches, `batch_size` or a little less, in each of `processes`.

    An incomplete last batch is left out of an epoch, since it would weigh its few images like a whole batch. Where that
    would leave out more than a tenth of `images`, an epoch has one batch more, and all are smaller: 204 images make two
    batches of 102 instead of one of 128.
    """
    whole = images // (batch_size * processes)
    left = images - whole * batch_size * processes
    smaller = images // ((whole + 1) * processes)
    if left <= MOST_LEFT_OUT * images or smaller < 2 or images % (smaller * processes) >= left:
        return batch_size
    return smaller


def _as_is(batch: Any) -> Any:
    return batch


def _pinned(batch: Batch) -> Batch:
    """Move the tensors of a batch into pinned memory, which a GPU copies from while the processor continues."""
    return {
        name: value.pin_memory() if isinstance(value, Tensor) and value.device.type == "cpu" else value
        for name, value in batch.items()
    }


def _collate(device: torch.device) -> Callable[[Any], Batch]:
    return _pinned if copies_without_waiting(device) else _as_is


def train_loader(
    dataset: InMemoryImages,
    batch_size: int,
    seed: int,
    epoch: int,
    device: torch.device = CPU,
    rank: int = 0,
    processes: int = 1,
    sampler: Order = "shuffled",
) -> DataLoader[Batch]:
    """Return a loader of batches of equal size in random order.

    Args:
        dataset: of the samples.
        batch_size: of all batches at most, see :func:`train_batch_size`.
        seed: of the order.
        epoch: the first, see :class:`EpochSampler`.
        device: where batches will go.
        rank: of this process, which gets its share of the batches, see :class:`EpochSampler`.
        processes: that train one network.
        sampler: "shuffled" takes each sample at most once an epoch; "balanced" draws them with replacement, every class
            as often as another.

    Raises:
        ValueError: if there are fewer samples than one batch for each process.
    """
    if batch_size * processes > len(dataset):
        each = f" in each of {processes} processes" if processes > 1 else ""
        most = len(dataset) // processes
        remedy = f"give at most batch_size={most}" if most else f"give trainer.devices={len(dataset)} or fewer"
        raise ValueError(
            f"batch_size={batch_size}{each} is larger than the training set of {len(dataset)} images: {remedy}"
        )
    size = train_batch_size(len(dataset), batch_size, processes)
    weights = (1 / dataset.labels.bincount())[dataset.labels].cpu() if sampler == "balanced" else None
    order = EpochSampler(len(dataset), seed, epoch, size, rank, processes, weights)
    return DataLoader(
        dataset,
        size,
        sampler=order,
        drop_last=True,
        collate_fn=_collate(device),
        generator=order.generator,
    )


def eval_loader(
    dataset: InMemoryImages, batch_size: int, device: torch.device = CPU, rank: int = 0, processes: int = 1
) -> DataLoader[Batch]:
    """All samples in their own order, in batches that will go to `device`.

    Process `rank` of several gets a contiguous share of the batches that one process would get. Each sample is thus
    seen once, in the same batch, and sums over all processes are those of one. A process for which no batch is left
    gets one without samples, since all of them must go through the same hooks.
    """
    batches = math.ceil(len(dataset) / batch_size)
    begin, end = (math.ceil(batches * r / processes) for r in (rank, rank + 1))
    if begin == end:
        nothing = {name: value[:0] for name, value in dataset.__getitems__([0]).items()}
        return DataLoader([nothing], None)  # type: ignore[arg-type]
    # One process takes torch's own sampler, of which Lightning knows that it keeps the order.
    sampler = None if processes == 1 else range(begin * batch_size, min(end * batch_size, len(dataset)))
    return DataLoader(dataset, batch_size, sampler=sampler, collate_fn=_collate(device))
