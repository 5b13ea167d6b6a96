"""Features of a frozen backbone, computed once for each image and found again by every later trial.

They are kept under a key of everything that they depend on: the backbone with a hash of its weights, the layer and
the pooling that they are taken from, what images go through, the images themselves, precision and library versions.
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
from cv_lab.data.mapped import Mapped, find_or_compute
from cv_lab.data.memory import send
from cv_lab.models.cut import flops
from cv_lab.tasks.transfer import Transfer

log = logging.getLogger(__name__)
AT_ONCE = 64  # images in a pass of the backbone: more gain nothing on processors
FORMAT = 2  # of the facts beside the features: seconds and operations of the pass
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

    def __getitems__(self, indices: list[int]) -> Batch:
        index = send(torch.tensor(indices), self.labels.device)
        return {"image": self.features[index], "label": self.labels[index], "index": index}


class FeatureData(ImageData):
    """The data module `data` with features in place of images.

    Args:
        data: set up.
        features: float (N, D), of the samples of each split.
        key: names what the training features were computed from.

    Attributes:
        whole_epochs: give each epoch of training as one batch that holds no features, for heads that are trained
            elsewhere.
    """

    def __init__(self, data: ImageData, features: dict[str, Tensor], key: str) -> None:
        super().__init__(
            data.batch_size,
            None,
            data.validation,
            seed=data.seed,
            resident=data.resident,
            preprocessing=data.preprocessing,
        )
        self.key, self.whole_epochs = key, False
        self.mean, self.std, self.classes = data.mean, data.std, data.classes
        self.train, self.val, self.test = (FeatureRows(getattr(data, s), features[s]) for s in SPLITS)

    def load(self, split: Split) -> InMemoryImages:
        raise AssertionError("features are loaded already")

    def train_dataloader(self) -> DataLoader[Batch]:
        if not self.whole_epochs:
            return super().train_dataloader()
        assert self.train is not None
        size = train_batch_size(len(self.train), self.batch_size)
        seen = torch.arange(len(self.train) // size * size)
        return DataLoader([{"image": seen.new_empty(len(seen), 0), "index": seen}], None)  # type: ignore[arg-type]

    def inputs(self, dataset: InMemoryImages, index: Any, device: torch.device) -> Tensor:
        assert isinstance(dataset, FeatureRows)
        return self.in_precision(dataset.features[index].to(device))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return batch


@dataclass(frozen=True)
class FeaturePass:
    """What the features of a trial cost."""

    seconds: float  # of the pass through the backbone, whether in this trial or an earlier one
    computed: bool  # in this trial
    flops: int  # of backbone and head for one image


def with_features(
    data: ImageData, task: Transfer, trainer: Trainer, name: str, folder: Path, wanted: bool
) -> tuple[ImageData, FeaturePass | None]:
    """`data` with features in place of images where they can be computed once; else `data`, and the log says why.

    Args:
        data: set up.
        task: with its weights.
        trainer: decides on device and precision.
        name: of the backbone.
        folder: where features are kept.
        wanted: whether to do so at all.
    """
    why_not = task.why_not_cached()
    if not wanted:
        why_not = "cache=off"
    elif why_not is None and data.augmentation is not None and data.augmentation.transforms:
        why_not = "augmentation is random (augmentation=none would do without)"
    if why_not is not None:
        log.info("the backbone runs in every epoch: %s", why_not)
        return data, None
    task.to(trainer.strategy.root_device)
    key = {
        "format": FORMAT,
        "backbone": name,
        "weights": task.backbone_hash(),
        "layer": f"input of {' and '.join(task.model.cut_at)}",  # behind the network's own pooling
        "preprocessing": data.preprocessing.over(data.mean, data.std).describe(),
        "precision": str(trainer.precision),
        "device": trainer.strategy.root_device.type,  # they round differently
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
        names[split], found = _features_of(union, data, task, trainer, key, folder)
        seconds, computed = seconds + found.facts["seconds"], computed or found.computed
        for part, dataset in parts.items():
            places = union.places(dataset)
            whole = len(places) == len(found.tensor) and torch.equal(places, torch.arange(len(places)))
            features[part] = found.tensor if whole else found.tensor[places]
    if computed:
        log.info("features computed in %.1f s, for this trial and later ones", seconds)
    else:
        log.info("features of an earlier trial are used, which took %.1f s", seconds)
    operations = found.facts["flops"] + flops(task.model.head, (1, task.model.width))
    return FeatureData(data, features, names["train"]), FeaturePass(seconds, computed, operations)


class _Union:
    """The samples of several parts of one set, each once, in the order of that set."""

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
        """Where the samples of `part` stand here, int64 (N,)."""
        return torch.searchsorted(self.rows, part.rows)

    def batches(self) -> Iterator[Tensor]:
        """All images in order, uint8 (<= AT_ONCE, 3, H, W)."""
        for owner, local in zip(self.owner.split(AT_ONCE), self.local.split(AT_ONCE), strict=True):
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
    images: _Union, data: ImageData, task: Transfer, trainer: Trainer, key: dict[str, Any], folder: Path
) -> tuple[str, Mapped]:
    """The name of the features of `images`, and themselves."""
    key = key | {"images": images.digest()}
    name = hashlib.sha256(repr(sorted(key.items())).encode()).hexdigest()[:24]
    dtype = torch.float64 if trainer.precision == "64-true" else torch.float32  # in which half precision is exact
    seconds, operations = 0.0, 0

    def rows() -> Iterator[Tensor]:
        nonlocal seconds, operations
        console = get_console()
        log.info("running the backbone once over %s images", f"{len(images):,}")
        batches = track(
            images.batches(),
            "features",
            -(-len(images) // AT_ONCE),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        model = task.model.eval()
        trainer.precision_plugin.convert_module(model.backbone)
        one = data.normalise(next(images.batches())[:1])
        operations = flops(model.backbone, tuple(one.shape))  # once here, so that trials after this one need not
        seconds, start = 0.0, time.perf_counter()
        for batch in batches:
            with torch.inference_mode(), trainer.precision_plugin.forward_context():
                inputs = trainer.precision_plugin.convert_input(data.normalise(batch.to(task.device)))
                features = model.features(inputs).to(dtype).cpu()
            seconds += time.perf_counter() - start
            yield features
            start = time.perf_counter()

    shape = (len(images), task.model.width)
    path = folder / "features" / f"{name}.safetensors"
    return name, find_or_compute(path, key, shape, dtype, rows, lambda: {"seconds": seconds, "flops": operations})
