"""Cut a network in two: a backbone, whose last stages may train, and a head of one's own."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.flop_counter import FlopCounterMode

from cv_lab.models.stages import stages


class CutNetwork(nn.Module):
    """A network whose head is replaced, frozen up to a cut.

    Below the cut nothing changes: parameters get no gradients, BatchNorm keeps its statistics and dropout is
    inactive, whatever :meth:`train` is told.

    Takes images, float (N, 3, H, W), or the features that :meth:`features` made of them, float (N, D).

    What the network does to the output of its head, such as SqueezeNet's ReLU and pooling, it still does.

    Args:
        network: any classifier; for its head see :func:`heads_of`.
        head: makes the head from D; by default one linear layer of `num_classes` outputs.
        trained_stages: of the backbone's last stages, how many train; -1 are all.
        freeze_statistics: BatchNorm layers keep their statistics above the cut too.
        dropout_below: dropout layers below the cut stay active in training.

    Raises:
        ValueError: if the network has no head that one layer could replace, or fewer stages.
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
        self.freeze_statistics, self.dropout_below = freeze_statistics, dropout_below
        # Some networks hold parameters fixed themselves, such as position embeddings that are sines and cosines.
        self.fixed = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
        self.stage_of = stages(network)
        self.stage_count = 1 + max(self.stage_of.values())
        self.train_stages(trained_stages)

    def train_stages(self, count: int) -> None:
        """Let the last `count` stages of the backbone train, or with -1 all.

        Raises:
            ValueError: if there are fewer stages.
        """
        if not -1 <= count <= self.stage_count:
            raise ValueError(
                f"{type(self.backbone).__name__} has {self.stage_count} stages, so {count} of them cannot train: "
                f"give 0 to {self.stage_count}, or -1 for all"
            )
        self.trained_stages = self.stage_count if count == -1 else count
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(name not in self.fixed and not self.is_frozen(name.rpartition(".")[0]))
        self.train(self.training)

    def is_frozen(self, name: str) -> bool:
        """Whether the backbone's module of that name lies below the cut."""
        return self.stage_of[name] < self.stage_count - self.trained_stages

    def stage_parameters(self, depth: int) -> list[nn.Parameter]:
        """The parameters of the stage at `depth`, counted from the head: 1 is the last stage."""
        names = [name for name, stage in self.stage_of.items() if stage == self.stage_count - depth]
        return [p for name in names for p in self.backbone.get_submodule(name).parameters(recurse=False)]

    def train(self, mode: bool = True) -> "CutNetwork":
        super().train(mode)
        for name, module in self.backbone.named_modules():
            if self.is_frozen(name):
                # Each by itself: a frozen container may hold stages that train.
                module.training = mode and self.dropout_below and isinstance(module, _DropoutNd)
            elif self.freeze_statistics and isinstance(module, _BatchNorm):
                module.training = False
        return self

    def features(self, images: Tensor) -> Tensor:
        """What the head gets of images, float (N, D); of a network with a tail, the mean over positions.

        Raises:
            ValueError: if the network gives anything else.
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
        """Whether the network computes something of its head's output, so that features of it cannot be kept."""
        return len(self.tail) > 0


def heads_of(network: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """A classifier's heads by name: the layers that timm names, or else its last linear layer or convolution.

    Where there are several, as in CrossViT and in distilled networks, the logits are the mean of what they give.

    Raises:
        ValueError: if the network has no head, or its logits are no mean of what its heads give.
    """
    kind = type(network).__name__
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    config = getattr(network, "pretrained_cfg", None)  # of timm's networks
    if config is None:
        names = list(layers)[-1:]
    else:
        told = config["classifier"] or ()
        names = [name for name in ([told] if isinstance(told, str) else told) if name in layers]
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
    """In place of one head of several: puts its input, (N, D), at its place among those of all heads.

    The mean of all heads' outputs, which the network takes, is then all their inputs side by side, (N, D1 + D2 + ...).
    """

    def __init__(self, heads: int, before: int, after: int) -> None:
        super().__init__()
        self.heads, self.before, self.after = heads, before, after

    def forward(self, inputs: Tensor) -> Tensor:
        return self.heads * F.pad(inputs, (self.before, self.after))


def _take_heads(network: nn.Module) -> tuple[tuple[str, ...], int]:
    """Replace a classifier's heads, so that it returns what they took; returns their names and the width of that."""
    heads = heads_of(network)
    widths = [head.in_features if isinstance(head, nn.Linear) else head.in_channels for head in heads.values()]
    for number, name in enumerate(heads):
        before, after = sum(widths[:number]), sum(widths[number + 1 :])
        network.set_submodule(name, _Part(len(heads), before, after) if len(heads) > 1 else nn.Identity())
    return tuple(heads), sum(widths)


def _take_tail(network: nn.Module, head: str) -> nn.Sequential:
    """Replace the layers that stand behind the module `head` in its Sequential by nothing, and return them.

    SqueezeNet has a ReLU and the pooling there.
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


def copy_to_meta(module: nn.Module) -> nn.Module:
    """A copy without data, in evaluation mode, for questions of shape and cost."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in module.parameters()}
    memo |= {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    return copy.deepcopy(module, memo).eval()  # it takes what stands in memo for copies, so that no data is copied


def flops(module: nn.Module, size: tuple[int, ...]) -> int:
    """Floating-point operations of a forward pass of float `size`; a multiplication and an addition count as two.

    Args:
        module: a network, or a part of one.
        size: of its input: of images (N, 3, H, W), or of features (N, D).

    Raises:
        ValueError: if the module takes no images of that size.
    """
    try:
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            copy_to_meta(module)(torch.empty(size, dtype=next(module.parameters()).dtype, device="meta"))
    except Exception as error:  # networks fail in their own ways, deep inside
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"the network takes no images of {' x '.join(map(str, size[2:]))} pixels ({reason}): they may be too small "
            "for it, or not of the size that it was made for. Give another with model.image_size=N for a network of "
            "torchvision or timm"
        ) from error
    return int(counter.get_total_flops())
