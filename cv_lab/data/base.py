"""What the data modules of all data sets share: splits, loaders, augmentation and normalisation on the device."""

import logging
from abc import abstractmethod
from typing import Any, Literal, get_args

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from cv_lab.data.augment import Augmentation, Batch, Mix
from cv_lab.data.in_memory import CPU, InMemoryImages, Order, eval_loader, train_batch_size, train_loader
from cv_lab.data.memory import free_memory
from cv_lab.data.pixels import Fit
from cv_lab.data.preprocess import Preprocessing
from cv_lab.data.splits import balanced_subset, stratified_split
from cv_lab.text import listing

log = logging.getLogger(__name__)
SHARE = 0.25  # of a GPU's free memory that a split may take; the network and its activations need the rest
Split = Literal["train", "val", "test"]
TEST_FRACTION = 0.15  # of a data set without a test set that is held out for one
TEST_SEED = 0  # of that test set: trials of all seeds are tested on the same images
_NAMES = {
    "label": "a label",
    "labels": "a set of labels",
    "mask": "a mask",
    "instances": "instances",
    "boxes": "boxes",
}


class ImageData(LightningDataModule):
    """Train, validation and test splits of labelled images.

    Subclasses give `mean`, `std` and :meth:`load`, and in `targets` what their images can be labelled with: "label",
    one class an image, "labels", any number of classes an image, "mask", one class a pixel, "instances", the objects
    of an image with their masks, or "boxes", the objects with their boxes alone.

    Args:
        batch_size: of all three loaders, in each process; see :func:`~cv_lab.data.in_memory.train_batch_size`.
        augmentation: applied to training batches on the device, before normalisation.
        validation: "split" validates on a part of the training set and keeps the test set for the end; "test"
            validates on the test set, as many courses do, and so picks the checkpoint by it.
        val_fraction: of the training set that is split off; class-balanced. A data set that has a validation set of its
            own is validated on that.
        train_subset: count or fraction of the remaining training images to use; class-balanced.
        val_subset: the same for validation.
        seed: of split, subsets and the order of batches.
        resident: keep the pixels of a split on the trial's device and make its batches there: true, false, or "auto",
            which does so on a GPU if the split takes at most `SHARE` of the free memory. The batches are the same.
        sampler: "shuffled" trains on every image once an epoch; "balanced" draws as many images with replacement, every
            class as often as another, so that rare classes are seen as often as frequent ones.
        preprocessing: what images go through on their way to the network; None only normalises them.
        target: the one of `targets` that the task learns from; None takes the first.

    Raises:
        ValueError: if the data set has no such target, an augmentation does not fit it, or an option has a value that
            is not known.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: tuple[str, ...]
    targets: tuple[str, ...] = ("label",)
    cropped = False  # whether training images are read as random crops

    def __init__(
        self,
        batch_size: int = 128,
        augmentation: Augmentation | None = None,
        validation: str = "split",
        val_fraction: float = 0.1,
        train_subset: int | float | None = None,
        val_subset: int | float | None = None,
        seed: int = 0,
        resident: bool | str = "auto",
        sampler: Order = "shuffled",
        preprocessing: Preprocessing | None = None,
        target: str | None = None,
    ) -> None:
        super().__init__()
        if resident not in (True, False, "auto"):
            raise ValueError(f"data.resident={resident} is not known: give true, false or auto")
        if sampler not in get_args(Order):
            raise ValueError(f"data.sampler={sampler} is not known: give {' or '.join(get_args(Order))}")
        if validation not in ("split", "test"):
            raise ValueError(f"data.validation={validation} is not known: give split or test")
        if not isinstance(val_fraction, int | float):
            raise ValueError(f"data.val_fraction={val_fraction} must be a number between 0 and 1")
        if type(batch_size) is not int or batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be a whole number of at least 1")
        if type(seed) is not int:
            raise ValueError(f"seed={seed} must be a whole number")
        if type(val_fraction) not in (int, float):
            raise ValueError(f"data.val_fraction={val_fraction} must be a number between 0 and 1")
        self.target = target or self.targets[0]
        if self.target not in self.targets:
            raise ValueError(
                f"the task learns from {_NAMES[self.target]} for each image, but {type(self).__name__} gives "
                f"{' or '.join(_NAMES[name] for name in self.targets)}: choose other data, or another task"
            )
        if sampler == "balanced" and self.target != "label":
            raise ValueError(
                "data.sampler=balanced draws images by their class, and the task learns from "
                f"{_NAMES[self.target]} for each image: weigh classes in the loss instead "
                "(loss=weighted_cross_entropy, task.positive_weights=balanced)"
            )
        mixes = [t for t in (augmentation.transforms if augmentation else []) if isinstance(t, Mix)]
        if mixes and self.target != "label":
            raise ValueError("the task cannot learn from mixed images: leave Mix out with augmentation.mix=null")
        self.batch_size, self.augmentation, self.seed = batch_size, augmentation, seed
        self.validation, self.val_fraction = validation, val_fraction
        self.train_subset, self.val_subset = train_subset, val_subset
        self.resident, self.sampler = resident, sampler
        self.train: InMemoryImages | None = None
        self.problems: list[dict[str, Any]] = []  # what was dropped, see data.problems.Problems
        self.problem_files: list[dict[str, str]] = []  # the same, file by file
        # How images of other proportions are made to fit, see data.pixels.Photo.fitted.
        self.fit: Fit = "crop" if self.target in ("label", "labels") else "pad"
        self._placed: dict[InMemoryImages, InMemoryImages] = {}
        self.preprocessing = preprocessing or Preprocessing()

    @abstractmethod
    def load(self, split: Split) -> InMemoryImages:
        """Return the whole training or test set as the data set's authors divided it; one of :meth:`splits`."""

    def splits(self) -> tuple[Split, ...]:
        """The sets that the data set is divided into; a missing "val" or "test" is held out from "train"."""
        return ("train", "test")

    def fingerprint(self) -> str:
        """A hash of the data's files, which changes when they do; "" where the parameters alone say what the data are.

        Decodes nothing, and needs no :meth:`setup`.
        """
        return ""

    def files_of(self, split: Split) -> list[str]:
        """The files of the images of `split`, in their order; empty where images have no files of their own."""
        return []

    def test_sets(self) -> list[InMemoryImages]:
        """The sets of images that are tested, in the order of the test's batches and their "index"."""
        return [self.test]

    def setup(self, stage: str | None = None) -> None:
        """Load, split and reduce; called by Lightning before each of fit and test, working only once."""
        if self.train is not None:
            return
        unused = "val" if self.validation == "test" else None
        parts = {split: self.load(split) for split in self.splits() if split != unused}
        train = parts["train"]
        self.classes, whole = train.classes, len(train)
        if "test" in parts:
            self.test = parts["test"]
        else:
            train, self.test = self._hold_out(train, TEST_FRACTION, TEST_SEED, "test")
            log.info("no test set: %.0f %% of the images (%s) are held out", 100 * TEST_FRACTION, len(self.test))
        if self.validation == "test":
            self.val = self.test
        elif "val" in parts:
            log.info("validated on the data set's own validation set (data.validation=split)")
            self.val = parts["val"]
            self.val.rows = self.val.rows + whole  # apart from those of the training set
        else:
            train, self.val = self._hold_out(train, self.val_fraction, self.seed, "validation")
        if self.train_subset is not None:
            train = train.subset(balanced_subset(train.labels.numpy(), self.train_subset, self.seed))
        if self.val_subset is not None:
            self.val = self.val.subset(balanced_subset(self.val.labels.numpy(), self.val_subset, self.seed))
        self.train = train

    def refuse_one_class(self) -> None:
        """Refuse training data of which every network would be right.

        Raises:
            ValueError: if the images are of one class, or their labelled pixels are.
        """
        assert self.train is not None
        if self.target not in ("label", "mask"):
            return
        counts = self.train.class_counts().counts
        seen = [name for name, count in zip(self.classes, counts, strict=True) if count]
        if len(seen) < 2:
            raise ValueError(
                f"there is nothing to tell apart: of {listing(self.classes)}, the {len(self.train)} training images "
                f"hold {listing(seen) or 'nothing'} alone. Give images of at least two classes, or name the background "
                "of masks too"
            )

    def _hold_out(
        self, images: InMemoryImages, fraction: float, seed: int, name: str
    ) -> tuple[InMemoryImages, InMemoryImages]:
        """Divide `images` by seed, so that the second part has `fraction` of each class."""
        kept, held_out = stratified_split(images.labels.numpy(), fraction, seed)
        parts = images.subset(kept), images.subset(held_out)
        counts = images.labels.bincount(minlength=len(self.classes))
        if self.target == "label" and (single := (counts == 1).nonzero().flatten().tolist()):
            log.warning(
                "%s of %s classes have one image, which is trained on, and none in the %s set: %s",
                len(single),
                len(self.classes),
                name,
                listing([self.classes[number] for number in single]),
            )
        return parts

    def train_dataloader(self) -> DataLoader[Batch]:
        assert self.train is not None
        epoch = self.trainer.current_epoch if self.trainer else 0
        size = train_batch_size(len(self.train), self.batch_size, self._rank()[1])
        if size < self.batch_size:
            log.info(
                "batches of %s instead of %s images, so that an epoch leaves out %s of %s and not %s",
                *(size, self.batch_size, len(self.train) % size, len(self.train), len(self.train) % self.batch_size),
            )
        return train_loader(
            self.placed(self.training_samples()),
            self.batch_size,
            self.seed,
            epoch,
            self.device,
            *self._rank(),
            self.sampler,
        )

    def training_samples(self) -> InMemoryImages:
        """What training batches are made of: `train`, or its images as they are read for training."""
        assert self.train is not None
        return self.train

    def val_dataloader(self) -> DataLoader[Batch]:
        return eval_loader(self.placed(self.val), self.batch_size, self.device, *self._rank())

    def test_dataloader(self) -> DataLoader[Batch]:
        return eval_loader(self.placed(self.test), self.batch_size, self.device, *self._rank())

    def _rank(self) -> tuple[int, int]:
        """Which of the processes that train one network this is, and how many they are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @property
    def device(self) -> torch.device:
        """Where batches go."""
        return self.trainer.strategy.root_device if self.trainer else CPU

    def placed(self, dataset: InMemoryImages) -> InMemoryImages:
        """Return `dataset`, moved to the trial's device if it should be resident there; it is moved only once."""
        if dataset not in self._placed:
            resident = self.resident
            if resident == "auto":
                resident = dataset.nbytes <= SHARE * free_memory(self.device)
            if resident and self.device.type != "cpu":
                log.info("%.0f MB of %s samples are kept on the GPU", dataset.nbytes / 1e6, f"{len(dataset):,}")
            self._placed[dataset] = dataset.to(self.device) if resident else dataset
        return self._placed[dataset]

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment training batches and normalise all, on the device."""
        assert self.trainer is not None
        if len(batch["image"]) == 0:  # of a process for which no image is left
            return batch
        if self.trainer.training and self.augmentation is not None:
            given = {"num_classes": len(self.classes), "side": self.preprocessing.size, "cropped": self.cropped}
            batch = self.augmentation({**batch, **given, "epoch": self.trainer.current_epoch})
        batch = {**batch, "image": self.in_precision(self.normalise(batch["image"]))}
        if "mask" in batch:
            batch["mask"] = batch["mask"].long()  # as losses want it; on the device, where that costs least
        return batch

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 or float (N, 3, H, W) in 0..255 to what the network takes, float32, channels last in memory."""
        return self.preprocessing.over(self.mean, self.std)(images)

    def inputs(self, dataset: InMemoryImages, index: Any, device: torch.device) -> Tensor:
        """What the network takes for the samples of `dataset` at `index`, as they are in validation."""
        return self.in_precision(self.normalise(dataset.images[index].to(device)))

    def in_precision(self, values: Tensor) -> Tensor:
        """float `values` in the type that the trainer's precision wants of a network's input."""
        return self.trainer.precision_plugin.convert_input(values) if self.trainer else values
