"""Compute the features of a frozen backbone once for each image, and keep them on disk for later trials.

Their key holds everything that they depend on: the backbone with a hash of its weights, the layer whose input they are,
the preprocessing, the images themselves, the precision, and the versions of libraries.
"""

import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from rich import get_console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from cv_lab.data.augment import Batch
from cv_lab.data.base import ImageData, Split
from cv_lab.data.in_memory import InMemoryImages, train_batch_size
from cv_lab.data.mapped import Mapped, cached, name_of
from cv_lab.models.cut import CutNetwork
from cv_lab.models.meta import flops

log = logging.getLogger(__name__)
PASS_BATCH = 64  # images in a batch of the backbone; larger batches are not faster on a CPU
FORMAT = 2  # version of what is kept beside the features: seconds and operations of the pass
SPLITS = ("train", "val", "test")
PACKAGES = ("torch", "torchvision", "timm")


class FeatureRows(InMemoryImages):
    """A split whose batches carry features in place of images.

    Args:
        source: the split.
        features: float32 or float64 (N, D), of its samples.
    """

    stored = ("features", "labels")

    def __init__(self, source: InMemoryImages, features: Tensor) -> None:
        super().__init__(source.images, source.labels, source.classes, source.rows)
        assert len(features) == len(source)
        self.features = features

    def inputs(self, index: Any) -> Tensor:
        """Features at `index`."""
        return self.features[index]


class FeatureData(ImageData):
    """The data module `data` with features in place of images.

    Args:
        data: set up.
        features: float (N, D), of the samples of each split.
        key: names the computation of the training features.
        placeholder_epochs: make each epoch of training one batch without features, for a head that is trained
            elsewhere.
    """

    def __init__(
        self, data: ImageData, features: dict[str, Tensor], key: str, placeholder_epochs: bool = False
    ) -> None:
        super().__init__(
            data.batch_size,
            None,
            data.validation,
            seed=data.seed,
            resident=data.resident,
            sampler=data.sampler,
            preprocessing=data.preprocessing,
        )
        self.source, self.features, self.key, self.placeholder_epochs = data, features, key, placeholder_epochs
        self.mean, self.std, self.classes = data.mean, data.std, data.classes
        self.train, self.val, self.test = (FeatureRows(getattr(data, s), features[s]) for s in SPLITS)

    def with_placeholder_epochs(self) -> "FeatureData":
        """The same data, with each epoch of training as one batch without features."""
        return FeatureData(self.source, self.features, self.key, placeholder_epochs=True)

    def load(self, split: Split) -> InMemoryImages:
        raise AssertionError("features are loaded already")

    def files_of(self, split: Split) -> list[str]:
        return self.source.files_of(split)

    def train_dataloader(self) -> DataLoader[Batch]:
        if not self.placeholder_epochs:
            return super().train_dataloader()
        assert self.train is not None
        size = train_batch_size(len(self.train), self.batch_size)
        seen = torch.arange(len(self.train) // size * size)
        return DataLoader([{"image": seen.new_empty(len(seen), 0), "index": seen}], None)  # type: ignore[arg-type]

    def inputs(self, dataset: InMemoryImages, index: Any, device: torch.device) -> Tensor:
        return self.in_precision(dataset.inputs(index).to(device))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return batch


@dataclass(frozen=True)
class FeaturePass:
    """What the features of a trial cost.

    Attributes:
        seconds: time of the pass through the backbone, in this trial or an earlier one.
        computed: whether this trial made the pass.
        flops: operations of backbone and head for one image.
    """

    seconds: float
    computed: bool
    flops: int


def with_features(
    data: ImageData, network: CutNetwork, trainer: Trainer, name: str, folder: Path, wanted: bool
) -> tuple[ImageData, FeaturePass | None]:
    """Replace the images of `data` by features, or log why features cannot be computed once.

    Args:
        data: set up.
        network: with its weights.
        trainer: decides on device and precision.
        name: of the network.
        folder: where features are kept.
        wanted: false leaves the images.
    """
    why_not = network.why_not_cached()
    if not wanted:
        why_not = "cache=off"
    elif why_not is None and data.augmentation is not None and data.augmentation.transforms:
        why_not = "augmentation is random (with augmentation=none it would run once)"
    if why_not is not None:
        log.info("the backbone runs in every epoch: %s", why_not)
        return data, None
    network.to(trainer.strategy.root_device)
    key = {
        "format": FORMAT,
        "backbone": name,
        "weights": network.backbone_hash(),
        "layer": f"input of {' and '.join(network.cut_at)}",  # behind the network's own pooling
        "preprocessing": data.preprocessing.over(data.mean, data.std).describe(),
        "precision": str(trainer.precision),
        "device": trainer.strategy.root_device.type,  # devices round differently
        "versions": {package: version(package) for package in PACKAGES},
    }
    assert data.train is not None
    # Train and validation are parts of one set: all seeds, which divide it differently, share its features.
    shared_with_val = "test" if data.validation == "test" else "train"
    features: dict[str, Tensor] = {}
    seconds, computed, names = 0.0, False, {}
    for split in ("train", "test"):
        parts = {split: getattr(data, split)} | ({"val": data.val} if shared_with_val == split else {})
        union = _Union(list(parts.values()))
        names[split], kept = _features_of(union, data, network, trainer, key, folder)
        seconds, computed = seconds + kept.facts["seconds"], computed or kept.computed
        for part, dataset in parts.items():
            places = union.places(dataset)
            whole = len(places) == len(kept.tensor) and torch.equal(places, torch.arange(len(places)))
            features[part] = kept.tensor if whole else kept.tensor[places]
    if computed:
        log.info("features computed in %.1f s, for this trial and later ones", seconds)
    else:
        log.info("features of an earlier trial are used, which took %.1f s", seconds)
    operations = kept.facts["flops"] + flops(network.head, (1, network.width))
    return FeatureData(data, features, names["train"]), FeaturePass(seconds, computed, operations)


class _Union:
    """Deduplicated union of splits of one data set, in the order of that set."""

    def __init__(self, parts: list[InMemoryImages]) -> None:
        self.parts = parts
        self.rows = torch.cat([part.rows for part in parts]).unique()  # sorted
        self.owner = torch.empty(len(self.rows), dtype=torch.long)
        self.local = torch.empty(len(self.rows), dtype=torch.long)
        for number, part in enumerate(parts):
            places = self.places(part)
            self.owner[places], self.local[places] = number, torch.arange(len(part))

    def __len__(self) -> int:
        return len(self.rows)

    def places(self, part: InMemoryImages) -> Tensor:
        """Index of each sample of `part` in the union, int64 (N,)."""
        return torch.searchsorted(self.rows, part.rows)

    def batches(self) -> Iterator[Tensor]:
        """All images in order, uint8 (<= PASS_BATCH, 3, H, W)."""
        for owner, local in zip(self.owner.split(PASS_BATCH), self.local.split(PASS_BATCH), strict=True):
            images = torch.empty(len(owner), *self.parts[0].images.shape[1:], dtype=torch.uint8)
            for number, part in enumerate(self.parts):
                mine = owner == number
                if mine.any():
                    images[mine] = part.images[local[mine]]
            yield images

    def digest(self) -> str:
        """A hash of all images in their order."""
        digest = hashlib.sha256(str((len(self), *self.parts[0].images.shape[1:])).encode())
        for images in self.batches():
            digest.update(images.view(-1).numpy().data)
        return digest.hexdigest()


def _features_of(
    images: _Union, data: ImageData, network: CutNetwork, trainer: Trainer, key: dict[str, Any], folder: Path
) -> tuple[str, Mapped]:
    """Compute the features of `images`, or read them; return a name of the computation and the features."""
    key = key | {"images": images.digest()}
    plugin, device = trainer.precision_plugin, trainer.strategy.root_device
    # float32 holds features of half precision exactly.
    dtype = torch.float64 if trainer.precision == "64-true" else torch.float32
    facts = {"seconds": 0.0, "flops": 0}

    def rows() -> Iterator[Tensor]:
        log.info("running the backbone once over %s images", f"{len(images):,}")
        network.eval()
        plugin.convert_module(network.backbone)
        one = data.normalise(next(images.batches())[:1])
        # Counted here and kept, so that later trials need no backbone to count them.
        facts.update(seconds=0.0, flops=flops(network.backbone, tuple(one.shape)))
        start = time.perf_counter()
        for batch in track(
            images.batches(),
            "features",
            -(-len(images) // PASS_BATCH),
            transient=True,
            disable=not get_console().is_terminal,
        ):
            with torch.inference_mode(), plugin.forward_context():
                inputs = plugin.convert_input(data.normalise(batch.to(device)))
                features = network.features(inputs).to(dtype).cpu()
            facts["seconds"] += time.perf_counter() - start
            yield features
            start = time.perf_counter()

    kept = cached(folder / "features", key, (len(images), network.width), dtype, rows, lambda: facts)
    return name_of(key), kept
