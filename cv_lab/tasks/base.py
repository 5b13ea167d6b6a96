"""What every task does alike: it counts in the steps, logs once an epoch, and says what can be done with it."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from cv_lab.data import pixels
from cv_lab.data.augment import Batch
from cv_lab.data.base import ImageData
from cv_lab.data.pixels import Fit
from cv_lab.data.preprocess import Preprocessing
from cv_lab.data.store import frames, ground_of
from cv_lab.models.cut import heads_of
from cv_lab.models.meta import flops
from cv_lab.models.weights import start_from
from cv_lab.training.evidence import Arrays
from cv_lab.training.optimizers import OptimizerFactory, ParameterGroups
from cv_lab.training.units import LOSS, Unit

ModelFactory = Callable[..., nn.Module]  # called with num_classes
SchedulerFactory = Callable[..., LRScheduler]  # called with the optimizer and total_steps

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Photo:
    """An image as a network takes it.

    Attributes:
        path: its file; empty for an image in memory.
        pixels: uint8 (H, W, 3), of the size that the network was trained at.
        shown: the part of `pixels` that shows the image, uint8 (h, w, 3).
        size: height and width of the part of the image that is shown, upright.
    """

    path: Path
    pixels: NDArray[np.uint8]
    shown: NDArray[np.uint8]
    size: tuple[int, int]


@dataclass(frozen=True)
class Exported:
    """A task's network as exporters take it.

    Attributes:
        module: maps uint8 images (N, 3, H, W) to what the task predicts for them: a tensor, or a tuple of tensors.
        example: uint8 (N, 3, H, W) of two images; of one if the module takes no more.
        outputs: name of each output.
    """

    module: nn.Module
    example: Tensor
    outputs: tuple[str, ...] = ("probabilities",)

    @property
    def batches(self) -> bool:
        """Whether the module takes any number of images; else it takes one."""
        return len(self.example) > 1


class Predictor(nn.Module):
    """A task's network between what its images go through before it and the task's own predictions after it.

    Args:
        task: a loaded one.
    """

    def __init__(self, task: "Task") -> None:
        super().__init__()
        self.model = task.model.to(memory_format=torch.contiguous_format)  # which torch.export expects
        self.preprocessing = task.preprocessing
        self.predict = task.predict

    def forward(self, images: Tensor) -> Any:
        """uint8 (N, 3, H, W) to the task's predictions."""
        return self.predict(self.preprocessing(images))


class Task(LightningModule):
    """Base of all tasks.

    `monitor` and `mode` name the logged metric by which the best checkpoint is chosen, and say whether "max" or "min"
    is better; checkpointing, early stopping and reports all read them here. `units` gives the unit and the direction of
    each metric by its name without the split ("accuracy"); figures of each class ("iou/cat") share the entry "iou".
    Metrics without an entry are shown as plain numbers.

    A task that should predict implements :meth:`predict` and :meth:`write`.

    Args:
        model: the network.
        classes: names of the classes that it tells apart.
        optimizer: makes the optimizer from groups of parameters.
        scheduler: makes a schedule from the optimizer and the number of all steps; stepped once a step.

    Raises:
        ValueError: if there are fewer classes than the task needs.
    """

    monitor: str
    mode: str
    units: ClassVar[Mapping[str, Unit]] = {"loss": LOSS}
    target = "label"  # or "labels", "mask", "instances", "boxes": what it learns of an image, see ImageData
    refused_precisions: ClassVar[dict[str, str]] = {}  # Lightning's names, and why each cannot be used
    unused_parameters = False  # whether some that train have no part in the loss of some steps
    fewest_classes = 2
    details: tuple[str, ...] = ()  # metrics that are logged, but left out of the line of an epoch
    square_photos = True  # predict for the central square of an image file; else for the whole of it
    table: str | None = "predictions.csv"  # or .json: where prediction writes the rows of all images

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__()
        if len(classes) < self.fewest_classes:
            raise ValueError(
                f"{type(self).__name__} tells classes apart and needs at least {self.fewest_classes}, but the data has "
                f"{len(classes)} ({', '.join(classes)}): add images of another class, or make the background a class"
            )
        # Convolutions on CPUs and on tensor cores are fastest with channels last.
        self.model = model.to(memory_format=torch.channels_last)
        self.classes = tuple(classes)
        self.preprocessing = Preprocessing()  # of a loaded task: what its images go through
        self.image_size: tuple[int, int] | None = None  # of a loaded task: height and width of its data set's images
        self.fit: Fit = "crop"  # of a loaded task: how images fit that size, see data.pixels.Photo.fitted
        self.optimizer_factory = optimizer
        self.scheduler_factory = scheduler
        self.metrics = nn.ModuleDict({f"{split}_metrics": self.configure_metrics(split) for split in _SPLITS})

    @classmethod
    def target_with(cls, model: Any) -> str:
        """What it learns of an image with the network that `model` makes."""
        return cls.target

    @abstractmethod
    def configure_metrics(self, split: str) -> nn.Module:
        """Fresh metrics for "train", "val" or "test"; the steps update them, :meth:`summarise` reads them."""

    @abstractmethod
    def summarise(self, metrics: Any) -> dict[str, Tensor]:
        """Scalars of a finished epoch from the metrics of one split; logged as ``SPLIT/NAME``."""

    @abstractmethod
    def step(self, split: str, batch: Batch) -> Tensor:
        """Count a batch in the metrics of "train", "val" or "test", and return its loss."""

    def split_metrics(self, split: str) -> Any:
        """The metrics of "train", "val" or "test", as they stand until the split's next epoch begins."""
        return self.metrics[f"{split}_metrics"]

    def confusion(self, split: str) -> Tensor | None:
        """The counts of a finished epoch, int64 (K, K), rows being the truth; None for tasks that count none."""
        return None

    def evidence(self) -> Arrays | None:
        """What the finished test says of each image, see :mod:`cv_lab.training.evidence`; None for tasks without."""
        return None

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def unit_of(self, metric: str) -> Unit | None:
        """Unit and direction of a logged metric, ``SPLIT/NAME``; None for one that `units` does not name."""
        _, _, name = metric.partition("/")
        declared = self.units.get(name) or self.units.get(name.partition("/")[0])
        return declared or (Unit("plain", self.mode) if metric == self.monitor else None)

    def judge_by(self, metric: str) -> None:
        """Choose the best checkpoint by another metric of the validation, ``val/NAME``.

        Raises:
            ValueError: if the validation logs no such metric, or none whose direction is known.
        """
        metrics = self.configure_metrics("val")
        self.count_nothing(metrics)
        with warnings.catch_warnings(action="ignore"):  # that nothing has been counted
            names = [f"val/{name}" for name in self.summarise(metrics)]
        units = {name: unit for name in names if (unit := self.unit_of(name)) is not None}
        if metric not in units:
            few = [name for name in units if name.count("/") == 1]
            classes = dict.fromkeys(f"{name.rpartition('/')[0]}/CLASS" for name in units if name.count("/") > 1)
            raise ValueError(f"monitor={metric} is no metric of the validation: give {', '.join([*few, *classes])}")
        self.monitor, self.mode = metric, units[metric].mode

    # What a trial asks of its task.

    def prepare(self, data: ImageData, trainer: Trainer, config: DictConfig, resumed: bool) -> ImageData:
        """Return the data to train on, after all that is to be computed of it before the training.

        Args:
            data: set up.
            trainer: decides on device and precision.
            config: the composed config of the trial.
            resumed: whether the training continues from a checkpoint.
        """
        return data

    def facts(self, size: tuple[int, ...]) -> dict[str, Any]:
        """Entries that this task adds to ``result.json``; called after :meth:`prepare`. "seconds" adds to the others.

        Args:
            size: of the network's input for one image, (1, 3, H, W).
        """
        return {"flops_per_image": self.flops(size)}

    def shared_seconds(self) -> tuple[float, float]:
        """Seconds of training that were spent for several trials at once.

        Returns:
            This trial's share of them, and those of them that lie within its own fit.
        """
        return 0.0, 0.0

    # What a trained task does with images from outside of its data set.

    def predict(self, images: Tensor) -> Any:
        """What the network says of images, float (N, 3, H, W) after `preprocessing`.

        Raises:
            NotImplementedError: if the task does not implement it.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not say what it predicts: implement predict(images), and write(...) for files"
        )

    def output_of(self, predictions: Any) -> Any:
        """The network's output for which :meth:`predict` gives `predictions`: for a file in the network's place."""
        return predictions

    def open_photo(self, path: Path) -> Photo:
        """Read an image file at the size of the images that a loaded task was trained on.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not an image, or a damaged one.
        """
        with pixels.opened(path) as image:
            return self.fitted(image, path)

    def fitted(self, image: pixels.Photo, path: Path = Path()) -> Photo:
        """Scale an open image to the size of the images that a loaded task was trained on.

        Args:
            image: is decoded here.
            path: its file, if it has one.
        """
        assert self.image_size is not None
        if self.square_photos:
            whole = image.fitted(self.image_size, self.fit, ground_of(self.preprocessing.mean or ()))
            return Photo(path, whole, whole, whole.shape[:2])
        assert self.preprocessing.mean is not None
        pad = self.fit == "pad"
        shown = image.fitting(self.image_size) if pad else image.fitted(self.image_size, self.fit, ())
        width, height = image.size
        (frame,) = frames(1, self.image_size, self.preprocessing.mean)
        frame[: shown.shape[0], : shown.shape[1]] = shown
        return Photo(path, frame, shown, (height, width))

    def describe_fitted(self) -> dict[str, Any]:
        """What :meth:`fitted` does, and what `preprocessing` does after it, as plain values."""
        assert self.image_size is not None
        assert self.preprocessing.mean is not None
        return {
            "pixels": "uint8 RGB, upright by EXIF",
            "size": list(self.image_size),
            "fit": self.fit,
            "resampling": "bilinear, antialiased",
            "place": "centre" if self.square_photos else "upper left",
            "ground": [int(value) for value in ground_of(self.preprocessing.mean)],
            "inside": self.preprocessing.describe(),
        }

    def files(self, name: str) -> tuple[str, ...]:
        """The files that :meth:`write` writes for the image `name`, relative to its folder."""
        return ()

    def write(self, photo: Photo, prediction: Any, folder: Path, name: str, score: float) -> tuple[list[Any], str]:
        """Write what is predicted for one image.

        Args:
            photo: the image.
            prediction: what :meth:`predict` gives for this image, still with the axis of a batch.
            folder: where files go.
            name: of the image; unique in `folder`, and may hold folders.
            score: the least probability or score of what is kept, for tasks that select by one.

        Returns:
            Rows for the table of all images, and a few words for the terminal.

        Raises:
            NotImplementedError: if the task does not implement it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to write predictions: implement write(...)")

    def exported(self) -> Exported:
        """A loaded task's network, to be written as one file.

        Raises:
            NotImplementedError: if the task does not implement :meth:`predict`.
            ValueError: if its predictions are not one tensor.
        """
        assert self.image_size is not None
        exported = Exported(Predictor(self).eval(), torch.zeros(2, 3, *self.image_size, dtype=torch.uint8))
        with torch.inference_mode():
            output = exported.module(exported.example)
        if not isinstance(output, Tensor):
            raise ValueError(
                f"{type(self).__name__} predicts {type(output).__name__} objects, but a file gives tensors: implement "
                "exported()"
            )
        return exported

    def predict_step(self, batch: Batch, batch_idx: int) -> Any:
        """What :meth:`predict` gives for the images of a batch."""
        return self.predict(batch["image"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.step("train", batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluation_step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.evaluation_step("test", batch)

    def evaluation_step(self, split: str, batch: Batch) -> None:
        """Count a batch of "val" or "test".

        Processes may have different numbers of batches, so nothing here may wait for another process; one without any
        image has a batch of none.
        """
        if len(batch["image"]):
            self.step(split, batch)
        else:
            self.count_nothing(self.split_metrics(split))

    def count_nothing(self, metrics: Any) -> None:
        """Count a batch without images, where `metrics` need something of the right shape to gather or compute."""

    def on_train_epoch_start(self) -> None:
        self._reset("train")

    def on_validation_epoch_start(self) -> None:
        self._reset("val")

    def on_test_epoch_start(self) -> None:
        self._reset("test")

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train")
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"], logger=False)

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        self._log_epoch("test")

    @property
    def network(self) -> nn.Module:
        """The network that weights are published for."""
        return self.model

    def start_from(self, state: dict[str, Tensor], source: str) -> None:
        """Start from the weights `state`, read from `source`; what depends on the classes stays as it is.

        Raises:
            ValueError: if they are not of this network.
        """
        start_from(self.model, state, source, heads_of(self.model))

    def flops(self, size: tuple[int, ...]) -> int:
        """Floating-point operations of the network for images of `size`, (1, 3, H, W)."""
        return flops(self.model, size)

    def compile_network(self) -> None:
        """Compile the network with `torch.compile`, in place: the names in its state dict stay as they are."""
        self.model.compile()

    def parameter_groups(self) -> ParameterGroups:
        """What trains; the learning rate of the first group is logged.

        A group's "lr_ratio" is its learning rate as a multiple of the optimizer's.
        """
        return [{"params": [parameter for parameter in self.parameters() if parameter.requires_grad]}]

    def make_optimizer(self) -> Optimizer:
        """The optimizer over :meth:`parameter_groups`."""
        optimizer = self.optimizer_factory(self.parameter_groups())
        for group in optimizer.param_groups:
            group["lr"] *= group.get("lr_ratio", 1.0)
        return optimizer

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer()
        if self.scheduler_factory is None:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = self.scheduler_factory(optimizer, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _reset(self, split: str) -> None:
        for metric in self.split_metrics(split).modules():
            if isinstance(metric, Metric):
                metric.reset()

    def _log_epoch(self, split: str) -> None:
        scalars = self.summarise(self.split_metrics(split))
        # EpochHistory hands them to the loggers, once an epoch.
        self.log_dict({f"{split}/{name}": value for name, value in scalars.items()}, logger=False)
