"""Linear probing: how well a linear layer tells the classes apart from a frozen backbone's features."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from pytorch_lightning import Trainer
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from cv_lab.data.augment import Batch
from cv_lab.data.base import ImageData
from cv_lab.frozen.features import FeatureData
from cv_lab.frozen.shared_heads import SharedHeads, shared_heads
from cv_lab.labels import NonFiniteLossError
from cv_lab.tasks.base import ModelFactory, OptimizerFactory, SchedulerFactory
from cv_lab.tasks.transfer import Transfer
from cv_lab.training.losses import full_precision
from cv_lab.training.metrics import ConfusionMatrix, accuracy
from cv_lab.training.optimizers import ParameterGroups
from cv_lab.training.units import SHARE

STANDARDISE_SAMPLE = 2048  # training images from which the mean and deviation of features are estimated
PASS_BATCH = 256  # images in a batch of the backbone


class Standardise(nn.Module):
    """Scale features to mean 0 and deviation 1 over the training set; before :meth:`fit`, leave them as they are."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def fit(self, features: Tensor) -> None:
        """Compute mean and deviation of features, float (N, D)."""
        std, mean = torch.std_mean(full_precision(features), dim=0, correction=0)
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-6 * (1 + mean.abs()), std, 1.0))  # a constant feature becomes 0

    def forward(self, features: Tensor) -> Tensor:
        return ((features - self.mean) / self.std).to(features.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Standardise":
        super()._apply(fn, recurse)
        # In half precision a mean that is far from 0 would be off by more than the deviation.
        self.mean, self.std = full_precision(self.mean), full_precision(self.std)
        return self


class LinearProbing(Transfer):
    """Train one linear layer on a frozen backbone; optionally also classify by nearest neighbours.

    Args:
        model, classes, loss, optimizer, scheduler: see :class:`~cv_lab.tasks.transfer.Transfer`.
        standardise: give the linear layer features of mean 0 and deviation 1, taken from a sample of the training
            images; one learning rate then suits all backbones.
        knn: the test also counts how often the `knn` nearest training images are right, as ``test/knn_accuracy``:
            cosine similarity s, each votes with exp(s / 0.07) (Wu et al., 2018). None leaves it out, and so does a test
            of the training images, each of which would be its own neighbour.
        together: train the heads of a study's trials that differ in optimizer, schedule, learning rate and weight
            decay alone in one pass, see :mod:`cv_lab.frozen.shared_heads`.
    """

    units = Transfer.units | {"knn_accuracy": SHARE}

    def __init__(
        self,
        model: ModelFactory,
        classes: Sequence[str],
        loss: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        standardise: bool = True,
        knn: int | None = None,
        together: bool = True,
    ) -> None:
        if knn is not None and knn < 1:
            raise ValueError(f"task.knn={knn} must be at least 1 neighbour, or null")

        def head(width: int) -> nn.Module:
            linear = nn.Linear(width, len(classes))
            return nn.Sequential(Standardise(width), linear) if standardise else linear

        super().__init__(model, classes, loss, optimizer, scheduler, head)
        self.standardise, self.knn, self.together = standardise, knn, together
        self.heads: SharedHeads | None = None
        self.knn_confusion = ConfusionMatrix(len(classes))
        self.bank: Tensor | None = None  # in a test with neighbours: the training images' features, float (N, D)

    @property
    def linear(self) -> nn.Linear:
        """The layer that is trained."""
        layer = self.model.head[1] if self.standardise else self.model.head  # type: ignore[index]
        assert isinstance(layer, nn.Linear)
        return layer

    def parameter_groups(self) -> ParameterGroups:
        return [{"params": list(self.model.head.parameters())}]

    def prepare(self, data: ImageData, trainer: Trainer, config: DictConfig, resumed: bool) -> ImageData:
        """Compute features once, and train the heads of a study's trials together, where either can be done."""
        data = super().prepare(data, trainer, config, resumed)
        if not isinstance(data, FeatureData) or not self.together or resumed:
            return data
        self.heads = shared_heads(self.linear, self.loss, trainer, config)
        if self.heads is None:
            return data
        self.automatic_optimization = False
        return data.with_placeholder_epochs()

    def shared_seconds(self) -> tuple[float, float]:
        if self.heads is None:
            return super().shared_seconds()
        return self.heads.seconds / len(self.heads), self.heads.seconds if self.heads.computed else 0.0

    # A head that is trained together with others goes through its epochs with the state that it had after each.

    @property
    def global_step(self) -> int:
        """Optimizer steps so far; of shared heads, whose epochs are one step each of Lightning's, those they took."""
        steps = super().global_step
        return steps if self.heads is None else steps * self.heads.steps

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["together"] = self.heads is not None  # no optimizer could go on from such a checkpoint

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # Shared heads were trained with their schedule.
        return super().configure_optimizers() if self.heads is None else self.make_optimizer()

    def on_train_start(self) -> None:
        if self.heads is not None:
            self.heads.train_or_load(self._head_inputs, self.trainer.datamodule)  # type: ignore[attr-defined]

    def _head_inputs(self) -> Tensor:
        """The inputs of the linear layer for the training images, float32 (N, D)."""
        features = self._train_features(torch.arange(len(self.trainer.datamodule.train)))  # type: ignore[attr-defined]
        return self.model.head[0](features) if self.standardise else features  # type: ignore[index]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.heads is None:
            return super().training_step(batch, batch_idx)
        epoch = self.heads.epoch(self.current_epoch)
        if epoch.failed_step:
            where = f"step {epoch.failed_step} (epoch {self.current_epoch + 1}, learning rate {epoch.lr:g})"
            raise NonFiniteLossError(epoch.loss.item(), where)
        with torch.no_grad():
            self.linear.weight.copy_(epoch.weight[:, :-1])
            self.linear.bias.copy_(epoch.weight[:, -1])
        metrics = self.split_metrics("train")
        metrics.loss.update(epoch.loss.to(self.device), len(batch["image"]))
        pairs = torch.arange(epoch.counts.numel()).repeat_interleave(epoch.counts.flatten()).to(self.device)
        metrics.confusion.update(pairs % len(self.classes), pairs // len(self.classes))
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        optimizer.param_groups[0]["lr"] = epoch.lr
        optimizer.step()  # changes nothing without gradients, but Lightning counts it and saves a checkpoint
        return epoch.first_loss

    def on_fit_start(self) -> None:
        if self.standardise:
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
            self.model.head[0].fit(self._train_features(order[:STANDARDISE_SAMPLE]))  # type: ignore[index]

    def on_test_start(self) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.bank = None
        if self.knn is not None and all(images is not data.train for images in data.test_sets()):
            self.knn_confusion.reset()
            self.bank = F.normalize(self._train_features(torch.arange(len(data.train))), dim=1)
            self.bank_labels = data.train.labels.to(self.device)

    def evaluation_step(self, split: str, batch: Batch) -> None:
        super().evaluation_step(split, batch)
        if split == "test" and self.bank is not None and len(batch["image"]):
            self.knn_confusion.update(self._neighbours_vote(batch["image"]), batch["label"])

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        if self.bank is not None:
            self.log("test/knn_accuracy", accuracy(self.knn_confusion.compute()), logger=False)

    def _neighbours_vote(self, inputs: Tensor) -> Tensor:
        """The class that the nearest training images choose, int64 (N,)."""
        assert self.knn is not None
        assert self.bank is not None
        features = self._features(inputs)
        with torch.autocast(self.device.type, enabled=False):  # half precision does not tell near neighbours apart
            similarity = F.normalize(features) @ self.bank.T
            nearest, index = similarity.topk(min(self.knn, len(self.bank)), dim=1)
            votes = similarity.new_zeros(len(inputs), len(self.classes))
            votes.scatter_add_(1, self.bank_labels[index], (nearest / 0.07).exp())
        return votes.argmax(1)

    def _features(self, inputs: Tensor) -> Tensor:
        return full_precision(inputs if inputs.ndim == 2 else self.model.features(inputs))

    @torch.no_grad()
    def _train_features(self, index: Tensor) -> Tensor:
        """Features of the training images at `index`, without augmentation, float32 or float64 (N, D)."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        with self.trainer.precision_plugin.forward_context():
            parts = [self._features(data.inputs(data.train, i, self.device)) for i in index.split(PASS_BATCH)]
        return torch.cat(parts)
