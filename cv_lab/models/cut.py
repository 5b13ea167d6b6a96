"""Cut a network in two: a backbone, whose last stages may train, and a new head."""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from cv_lab.models.freezing import Freezing
from cv_lab.models.weights import start_from, weights_hash


class CutNetwork(nn.Module):
    """A network whose head is replaced and whose backbone is frozen, but for its last stages.

    Takes images, float (N, 3, H, W), or the features that :meth:`features` computed of them, float (N, D).

    What the network does to the output of its head, such as SqueezeNet's ReLU and pooling, it still does.

    Args:
        network: any classifier; for its head see :func:`heads_of`.
        head: makes the head from D.
        trained_stages: number of the backbone's last stages that train; -1 trains all.
        freeze_statistics: BatchNorm layers of trained stages keep their statistics too.
        dropout_below: dropout layers of frozen stages stay active in training.

    Attributes:
        freezing: which stages train, see :class:`~cv_lab.models.freezing.Freezing`.
        cut_at: names of the layers that were the network's heads.
        width: D.
        most_trained_stages: stages that train at any time; gradual unfreezing lowers ``freezing.trained_stages`` first.
        source: where the backbone's weights come from; None while they are random.

    Raises:
        ValueError: if the network has no head that one layer could replace, or has fewer stages.
    """

    def __init__(
        self,
        network: nn.Module,
        head: Callable[[int], nn.Module],
        trained_stages: int = 0,
        freeze_statistics: bool = True,
        dropout_below: bool = False,
    ) -> None:
        super().__init__()
        self.cut_at, self.width = _take_heads(network)
        self.tail = _take_tail(network, self.cut_at[-1])
        self.backbone = network
        self.head = head(self.width)
        self.freezing = Freezing(network, trained_stages, freeze_statistics, dropout_below)
        self.most_trained_stages = self.freezing.trained_stages
        self.source: str | None = None
        self._hash: str | None = None
        self.train(self.training)

    def train_stages(self, count: int) -> None:
        """Train the last `count` stages of the backbone from now on."""
        self.freezing.train_stages(count)
        self.train(self.training)

    def train(self, mode: bool = True) -> "CutNetwork":
        super().train(mode)
        self.freezing.set_mode(mode)
        return self

    def start_from(self, state: Mapping[str, Tensor], source: str) -> None:
        """Start the backbone from the weights `state`, read from `source`, of a network with any head.

        Raises:
            ValueError: if they are of another network.
        """
        start_from(self.backbone, state, source, self.cut_at)
        self.source, self._hash = source, None

    def backbone_hash(self) -> str:
        """A hash of the weights that the backbone starts from, computed at the first call."""
        if self._hash is None:
            self._hash = weights_hash(self.backbone)
        return self._hash

    def why_not_cached(self) -> str | None:
        """The reason why features cannot be computed once and kept; None if they can."""
        if self.most_trained_stages:
            return f"{self.most_trained_stages} of the backbone's {self.freezing.count} stages train"
        if self.freezing.dropout:
            return "dropout below the cut is active"
        if self.has_tail():
            return "the network applies its head before it pools, so that each image has features at many positions"
        return None

    def features(self, images: Tensor) -> Tensor:
        """The input of the head, float (N, D); of a network with a tail, its mean over positions.

        Raises:
            ValueError: if the backbone's output is of another shape.
        """
        inputs = self._head_inputs(images)
        return inputs.mean(1) if self.has_tail() else inputs

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.ndim == 2:
            return self.head(inputs)
        outputs = self.head(self._head_inputs(inputs))
        return self.tail(outputs.transpose(1, 2)[..., None]).flatten(1) if self.has_tail() else outputs

    def _head_inputs(self, images: Tensor) -> Tensor:
        """Float (N, D), or (N, P, D) where the head is applied to P positions before the tail pools them."""
        features = self.backbone(images).flatten(1)
        if self.has_tail():
            return features.unflatten(1, (self.width, -1)).transpose(1, 2)
        if features.shape[1] != self.width:
            raise ValueError(
                f"{type(self.backbone).__name__} cannot be cut below {' and '.join(self.cut_at)}: it then gives "
                f"{features.shape[1]} features, but its head takes {self.width}. Choose another network"
            )
        return features

    def has_tail(self) -> bool:
        """Whether the network computes something from the output of its head; its features then cannot be kept."""
        return len(self.tail) > 0


def heads_of(network: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """A classifier's heads by name: the layers that timm names, or else its last linear layer or convolution.

    Where there are several, as in CrossViT and in distilled networks, the logits are the mean of their outputs.

    Raises:
        ValueError: if the network has no head, or its logits are not the mean of its heads' outputs.
    """
    kind = type(network).__name__
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    config = getattr(network, "pretrained_cfg", None)  # of timm's networks
    if config is None:
        names = list(layers)[-1:]
    else:
        given = config["classifier"] or ()
        names = [name for name in ([given] if isinstance(given, str) else given) if name in layers]
    if any(name.startswith("aux") for name in names):
        raise ValueError(
            f"{kind} adds to the output of its head the largest outputs of aux_head over all patches, so no single "
            "layer can replace them: make it with use_aux_head=False"
        )
    if not names:
        raise ValueError(
            f"{kind} ends in no linear layer or convolution that a new head could replace: choose a network that "
            "classifies images"
        )
    return {name: layers[name] for name in names}


class _Part(nn.Module):
    """Stand in for one head of several: pad its input, (N, D), to the widths of the inputs of all heads.

    The network's mean over its heads' outputs then is the concatenation of their inputs, (N, D1 + D2 + ...).
    """

    def __init__(self, heads: int, before: int, after: int) -> None:
        super().__init__()
        self.heads, self.before, self.after = heads, before, after

    def forward(self, inputs: Tensor) -> Tensor:
        return self.heads * F.pad(inputs, (self.before, self.after))


def _take_heads(network: nn.Module) -> tuple[tuple[str, ...], int]:
    """Replace a classifier's heads so that it returns their inputs; return their names and the width of the inputs."""
    heads = heads_of(network)
    widths = [head.in_features if isinstance(head, nn.Linear) else head.in_channels for head in heads.values()]
    for number, name in enumerate(heads):
        before, after = sum(widths[:number]), sum(widths[number + 1 :])
        network.set_submodule(name, _Part(len(heads), before, after) if len(heads) > 1 else nn.Identity())
    return tuple(heads), sum(widths)


def _take_tail(network: nn.Module, head: str) -> nn.Sequential:
    """Replace the layers that follow the module `head` in its Sequential by identities, and return them.

    In SqueezeNet these are a ReLU and the pooling.
    """
    path, _, own = head.rpartition(".")
    parent = network.get_submodule(path)
    if not isinstance(parent, nn.Sequential):
        return nn.Sequential()
    names = [name for name, _ in parent.named_children()]
    behind = names[names.index(own) + 1 :]
    tail = nn.Sequential(*(parent.get_submodule(name) for name in behind))
    for name in behind:
        parent.set_submodule(name, nn.Identity())
    return tail
