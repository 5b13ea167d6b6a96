"""What every task does alike: it counts in the steps, logs once an epoch, and builds its optimizer from partials."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from cv_lab.data.augment import Batch
from cv_lab.data.preprocess import Preprocessing
from cv_lab.models.cut import flops
from cv_lab.models.weights import fit_state_dict
from cv_lab.training.evidence import Arrays
from cv_lab.training.optimizers import OptimizerFactory, ParameterGroups

ModelFactory = Callable[..., nn.Module]  # called with num_classes
SchedulerFactory = Callable[..., LRScheduler]  # called with the optimizer and total_steps

_SPLITS = ("train", "val", "test")


class Task(LightningModule):
    """Base of all tasks.

    `monitor` and `mode` name the logged metric by which the best checkpoint is chosen, and say whether "max" or "min"
    is better; checkpointing, early stopping and reports all read them here.

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
    target = "label"  # or "mask", or "instances": what of an image it learns, see ImageData.choose_target
    refused_precisions: ClassVar[dict[str, str]] = {}  # Lightning's names, and why each cannot be used
    unused_parameters = False  # whether some that train have no part in the loss of some steps
    fewest_classes = 2
    details: tuple[str, ...] = ()  # metrics that are logged, but left out of the line that tells of an epoch

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
        self.preprocessing = Preprocessing()  # what its images go through, the data set's mean and deviation aside
        self.image_size: tuple[int, int] | None = None  # of a loaded task: height and width of its data set's images
        self.optimizer_factory = optimizer
        self.scheduler_factory = scheduler
        self.metrics = nn.ModuleDict({f"{split}_metrics": self.configure_metrics(split) for split in _SPLITS})

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
        fit_state_dict(self.model, state, source)

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
