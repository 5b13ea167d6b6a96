"""Networks of torchvision and timm by name."""

from difflib import get_close_matches

import timm
import torchvision
from torch import nn


def torchvision_classifier(num_classes: int, name: str = "resnet18") -> nn.Module:
    """A torchvision classifier with untrained weights, such as ``resnet18`` or ``mobilenet_v3_small``.

    Raises:
        ValueError: if torchvision has no classifier of that name.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    _check_name("torchvision", name, names)
    # GoogLeNet and Inception return an auxiliary output too unless told not to.
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **extra)


def timm_classifier(num_classes: int, name: str = "mobilenetv3_small_100") -> nn.Module:
    """A timm network with untrained weights and a head for `num_classes`.

    Raises:
        ValueError: if timm has no network of that name.
    """
    _check_name("timm", name, timm.list_models())
    return timm.create_model(name, pretrained=False, num_classes=num_classes)


def _check_name(library: str, name: str, names: list[str]) -> None:
    if name not in names:
        close = get_close_matches(name, names, n=5, cutoff=0.5) or names[:5]
        raise ValueError(f"{library} has no network {name!r}; it has {', '.join(close)} and {len(names)} in all")
