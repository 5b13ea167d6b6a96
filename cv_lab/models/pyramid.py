"""A feature pyramid over any classifier: its features at several strides, with as many channels each."""

from collections.abc import Sequence

import torch
from timm.models import get_notrace_functions, get_notrace_modules
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from cv_lab.models.cut import copy_to_meta
from cv_lab.models.stages import stages

PROBED = 256  # side in pixels of the image that tells the strides


class PartlyFrozen(nn.Module):
    """A network of which only the last stages train, and whose batch normalisation may keep its statistics.

    Args:
        body: the network.
        trained_stages: of its last stages, how many train; -1 are all.
        freeze_statistics: batch normalisation keeps its statistics where it trains too.

    Raises:
        ValueError: if there are fewer stages.
    """

    def __init__(self, body: nn.Module, trained_stages: int = -1, freeze_statistics: bool = False) -> None:
        super().__init__()
        self.body, self.freeze_statistics = body, freeze_statistics
        stage_of = stages(body)
        count = 1 + max(stage_of.values())
        if not -1 <= trained_stages <= count:
            raise ValueError(
                f"the backbone has {count} stages, so {trained_stages} of them cannot train: give 0 to {count}, or -1 "
                "for all"
            )
        first = 0 if trained_stages == -1 else count - trained_stages
        self.frozen = {name for name, stage in stage_of.items() if stage < first}
        for name, module in body.named_modules():
            if name in self.frozen:
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> "PartlyFrozen":
        super().train(mode)
        for name, module in self.body.named_modules():
            if isinstance(module, _BatchNorm) and (self.freeze_statistics or name in self.frozen):
                module.training = False
        return self

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.body(images)


class PyramidBackbone(nn.Module):
    """A feature pyramid (Lin et al., 2017) over a classifier.

    Maps float (N, 3, H, W) to float (N, `channels`, H / s, W / s) under "0", "1", ... for each stride s, and under
    "pool" for twice the largest.

    Args:
        classifier: any network that can be traced.
        strides: of the features, ascending.
        channels: of each level.
        trained_stages: see :class:`PartlyFrozen`.
        freeze_statistics: likewise.

    Raises:
        ValueError: if the classifier cannot be traced, or has no features of such a stride.
    """

    def __init__(
        self,
        classifier: nn.Module,
        strides: Sequence[int] = (4, 8, 16, 32),
        channels: int = 64,
        trained_stages: int = -1,
        freeze_statistics: bool = False,
    ) -> None:
        super().__init__()
        found = _features(classifier)
        if missing := [stride for stride in strides if stride not in found]:
            raise ValueError(
                f"{type(classifier).__name__} has no features of stride {', '.join(map(str, missing))}: give "
                f"model.strides out of {sorted(found)}"
            )
        names = {found[stride][0]: str(level) for level, stride in enumerate(strides)}
        body = create_feature_extractor(classifier, names, tracer_kwargs=_tracing(), suppress_diff_warning=True)
        self.body = PartlyFrozen(body, trained_stages, freeze_statistics)
        self.fpn = FeaturePyramidNetwork(
            [found[stride][1] for stride in strides], channels, LastLevelMaxPool(), norm_layer=nn.BatchNorm2d
        )
        self.strides, self.out_channels = tuple(strides), channels

    @property
    def extractor(self) -> nn.Module:
        """The part that was cut out of the classifier; its parameters are named alike."""
        return self.body.body

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.fpn(self.body(images))


def _features(classifier: nn.Module) -> dict[int, tuple[str, int]]:
    """By stride, the last node of the network's graph that gives features of it, and their channels."""
    network = copy_to_meta(classifier).eval()
    try:
        training, inference = get_graph_node_names(network, tracer_kwargs=_tracing(), suppress_diff_warning=True)
        names = [name for name in inference if name in training]
        every = create_feature_extractor(network, names, tracer_kwargs=_tracing(), suppress_diff_warning=True).eval()
        with torch.inference_mode():
            outputs = every(torch.empty(1, 3, PROBED, PROBED, device="meta"))
    except Exception as error:  # the tracer fails in many ways, deep inside
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"{type(classifier).__name__} cannot be cut into features ({reason}): give another backbone, such as "
            "model@model.backbone=timm model.backbone.name=resnet18"
        ) from error
    found = {}
    for name, value in outputs.items():
        if isinstance(value, Tensor) and value.ndim == 4 and value.shape[2] == value.shape[3] > 1:
            stride, rest = divmod(PROBED, value.shape[2])
            if rest == 0:
                found[stride] = (name, value.shape[1])
    return found


def _tracing() -> dict[str, list[object]]:
    """What is left whole: what timm says that cannot be looked into."""
    return {"leaf_modules": list(get_notrace_modules()), "autowrap_functions": list(get_notrace_functions())}
