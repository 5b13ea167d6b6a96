"""Base of fine-tuning and linear probing: a backbone, frozen up to a cut, and a head."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning import Trainer
from torch import Tensor, nn

from cv_lab.data.base import ImageData
from cv_lab.frozen.features import FeaturePass, with_features
from cv_lab.models.cut import CutNetwork
from cv_lab.tasks.base import ModelFactory, OptimizerFactory, SchedulerFactory
from cv_lab.tasks.classification import Classification


class Transfer(Classification):
    """Classify with a partly frozen network.

    Args:
        model: makes the network, whose head is replaced.
        classes: the K names.
        loss: see :class:`~cv_lab.tasks.classification.Classification`.
        optimizer, scheduler: see :class:`~cv_lab.tasks.base.Task`.
        head: makes the head from the number of features D.
        options: see :class:`~cv_lab.models.cut.CutNetwork`.
    """

    model: CutNetwork

    def __init__(
        self,
        model: ModelFactory,
        classes: Sequence[str],
        loss: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        head: Callable[[int], nn.Module] | None = None,
        **options: Any,
    ) -> None:
        head = head or partial(nn.Linear, out_features=len(classes))

        def cut(num_classes: int) -> nn.Module:
            return CutNetwork(model(num_classes=num_classes), head, **options)

        super().__init__(cut, classes, loss, optimizer, scheduler)
        self.features: FeaturePass | None = None  # of :meth:`prepare`, where features are computed once

    @property
    def network(self) -> nn.Module:
        return self.model.backbone

    def start_from(self, state: dict[str, Tensor], source: str) -> None:
        self.model.start_from(state, source)

    def prepare(self, data: ImageData, trainer: Trainer, config: DictConfig, resumed: bool) -> ImageData:
        """Replace images by features where these can be computed once."""
        name = str(config.model.get("name", config.model._target_))
        data, self.features = with_features(data, self.model, trainer, name, Path(config.cache_dir), config.cache)
        return data

    def facts(self, size: tuple[int, ...]) -> dict[str, Any]:
        if self.features is None:
            return super().facts(size)
        # The pass serves all trials that use its features; none of them counts it as its own.
        seconds = {"features": self.features.seconds}
        return {
            "flops_per_image": self.features.flops,
            "seconds": seconds,
            "features_computed": self.features.computed,
        }

    def setup(self, stage: str) -> None:
        if self.model.source is not None and not self.model.most_trained_stages:
            self.model.backbone_hash()  # before Lightning converts the weights to the trainer's precision

    # A backbone that never trains is left out of the checkpoints if its weights can be read again: it is large.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.model.source is None or self.model.most_trained_stages:
            return
        checkpoint["backbone_from"] = self.model.source
        checkpoint["backbone_hash"] = self.model.backbone_hash()
        for key in ("state_dict", "current_model_state"):  # the latter beside averaged weights
            if key in checkpoint:
                state = checkpoint[key]
                checkpoint[key] = {k: v for k, v in state.items() if not k.startswith("model.backbone.")}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the backbone to a checkpoint that holds only the head.

        Raises:
            ValueError: if its head was trained on another backbone than this one.
        """
        if "backbone_from" not in checkpoint:
            return
        if checkpoint["backbone_hash"] != self.model.backbone_hash():
            raise ValueError(
                f"the checkpoint holds only a head, which was trained on weights={checkpoint['backbone_from']}, but "
                f"weights={self.model.source} gives another backbone now: restore that file, or name the right one "
                "with --weights"
            )
        own = {k: v for k, v in self.state_dict().items() if k.startswith("model.backbone.")}
        for key in ("state_dict", "current_model_state"):
            if key in checkpoint:
                checkpoint[key] = {**checkpoint[key], **own}
