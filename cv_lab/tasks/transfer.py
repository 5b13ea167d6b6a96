"""What fine-tuning and linear probing share: a backbone that is frozen up to a cut, and a head."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from cv_lab.models.cut import CutNetwork
from cv_lab.models.weights import start_from, weights_hash
from cv_lab.tasks.base import ModelFactory, OptimizerFactory, SchedulerFactory
from cv_lab.tasks.classification import Classification


class Transfer(Classification):
    """Classify with a network of which a part is frozen.

    Args:
        model: makes the network, whose head is replaced.
        classes: the K names.
        loss: see :class:`~cv_lab.tasks.classification.Classification`.
        optimizer: see :class:`~cv_lab.tasks.base.Task`.
        scheduler: see :class:`~cv_lab.tasks.base.Task`.
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
        self.weights: str | None = None  # where the backbone's weights came from
        self.frozen_hash: str | None = None  # of a backbone that does not change any more

    @property
    def network(self) -> nn.Module:
        return self.model.backbone

    def start_from(self, state: dict[str, Tensor], source: str) -> None:
        start_from(self.model.backbone, state, self.model.cut_at, source)
        self.weights = source

    def why_not_cached(self) -> str | None:
        """Why features cannot be computed once and for all; None if they can."""
        if self.model.trained_stages:
            return f"{self.model.trained_stages} of the backbone's {self.model.stage_count} stages train"
        if self.model.dropout_below:
            return "dropout below the cut is active"
        if self.model.has_tail():
            return "the network applies its head before it pools, so that each image has features at many positions"
        return None

    # A frozen backbone is as large as it is useless in each checkpoint, when its weights can be read again.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.weights is None or not self.model.is_deterministic():
            return
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in state.items() if not k.startswith("model.backbone.")}
        checkpoint["backbone_from"] = self.weights
        if self.frozen_hash is None:
            self.frozen_hash = self.backbone_hash()
        checkpoint["backbone_hash"] = self.frozen_hash

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the backbone to a checkpoint of the head alone.

        Raises:
            ValueError: if its head was trained on another backbone than this one.
        """
        if "backbone_from" not in checkpoint:
            return
        if checkpoint["backbone_hash"] != self.backbone_hash():
            raise ValueError(
                f"the checkpoint holds a head alone, and the backbone that it was trained on is not the one that "
                f"weights={checkpoint['backbone_from']} gives now: restore that file"
            )
        own = {k: v for k, v in self.state_dict().items() if k.startswith("model.backbone.")}
        checkpoint["state_dict"] = {**checkpoint["state_dict"], **own}

    def backbone_hash(self) -> str:
        """A hash of the backbone's weights."""
        return weights_hash(self.model.backbone)
