"""Networks of torchvision and timm by name, with what their publishers say of them."""

import sys
from abc import ABC, abstractmethod
from difflib import get_close_matches
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from cv_lab.models.cut import copy_to_meta
from cv_lab.preprocess import Preprocessing


class NetworkFactory(ABC):
    """Makes networks from ``num_classes``, and knows where weights for them come from."""

    @abstractmethod
    def __call__(self, num_classes: int) -> nn.Module:
        """A network with random weights."""

    @property
    @abstractmethod
    def preprocessing(self) -> Preprocessing:
        """What an image goes through on its way to the network."""

    @abstractmethod
    def default_weights(self) -> dict[str, Tensor]:
        """Published weights, downloaded on first use.

        Raises:
            ValueError: if there are none, or they cannot be had.
        """

    @abstractmethod
    def adapt(self, state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        """`state` for `network`, whose images may be of another size: position embeddings are interpolated."""


class NamedNetwork(NetworkFactory):
    """A network of a library; called with ``num_classes`` it makes one, untrained.

    Args:
        name: as the library calls it.
        image_size: side in pixels to which images are scaled; None takes the published size where the network has
            published weights or takes no other size, and else leaves images as they are.
        weights: "none" if it shall be trained from scratch. Networks that start from weights get their images as
            those were trained: of the published size, mean and standard deviation.

    Raises:
        ValueError: if the library has no classifier of that name.
    """

    library: str

    def __init__(self, name: str, image_size: int | None = None, weights: str = "none") -> None:
        self.name, self.image_size, self.pretrained = name, image_size, weights != "none"
        check_name(self.library, name, self.names())

    def __call__(self, num_classes: int) -> nn.Module:
        """A network with random weights.

        Raises:
            ValueError: if it cannot be made for `image_size`.
        """
        if self.image_size is None or not self.fixed_size():
            return self.make(num_classes)
        try:  # before weights are adapted to the size
            network = self.make(num_classes)
            copy_to_meta(network)(torch.empty(1, 3, self.image_size, self.image_size, device="meta"))
        except Exception as error:  # libraries fail in their own ways, deep inside
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ValueError(
                f"{self.name} takes no images of model.image_size={self.image_size} pixels ({reason}): it was "
                f"published for {self.published().size}"
            ) from error
        return network

    @property
    def preprocessing(self) -> Preprocessing:
        """What an image goes through on its way to the network."""
        published = self.published()
        size = self.image_size or (published.size if self.pretrained or self.fixed_size() else None)
        if not self.pretrained:
            return Preprocessing(size=size, interpolation=published.interpolation)
        return Preprocessing(published.mean, published.std, size, published.interpolation)

    @abstractmethod
    def names(self) -> list[str]:
        """All networks of the library."""

    @abstractmethod
    def make(self, num_classes: int) -> nn.Module:
        """The network, untrained."""

    @abstractmethod
    def published(self) -> Preprocessing:
        """Size, mean, standard deviation and interpolation that the publisher trained with."""

    @abstractmethod
    def fixed_size(self) -> bool:
        """Whether the network takes images of one size only."""

    @abstractmethod
    def download(self) -> dict[str, Tensor]:
        """The library's published weights."""

    def default_weights(self) -> dict[str, Tensor]:
        """The library's published weights, downloaded on first use.

        Raises:
            ValueError: if there are none, or they cannot be had.
        """
        try:
            return self.download()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ValueError(
                f"the weights that {self.library} publishes for {self.name} cannot be had ({reason}): give a file of "
                "them with weights=FILE, or train from scratch with weights=none"
            ) from error


class TimmNetwork(NamedNetwork):
    """A network of timm, such as ``resnet18`` or ``vit_base_patch16_224``."""

    library = "timm"

    def names(self) -> list[str]:
        return timm.list_models()

    def make(self, num_classes: int) -> nn.Module:
        # Convolutional networks take any size; only the others have the argument.
        extra: dict[str, Any] = {"img_size": self.image_size} if self.image_size and self.fixed_size() else {}
        return timm.create_model(self.name, pretrained=False, num_classes=num_classes, **extra)

    def published(self) -> Preprocessing:
        config = timm.get_pretrained_cfg(self.name)
        assert config is not None
        interpolation = config.interpolation if config.interpolation in ("bicubic", "bilinear") else "bicubic"
        return Preprocessing(tuple(config.mean), tuple(config.std), config.input_size[-1], interpolation)

    def fixed_size(self) -> bool:
        config = timm.get_pretrained_cfg(self.name)
        assert config is not None
        return bool(config.fixed_input_size)

    def download(self) -> dict[str, Tensor]:
        return timm.create_model(self.name, pretrained=True).state_dict()

    def adapt(self, state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        fit = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        return fit(state, network) if fit is not None and self.image_size and self.fixed_size() else state


class TorchvisionNetwork(NamedNetwork):
    """A classifier of torchvision, such as ``resnet18`` or ``vit_b_16``."""

    library = "torchvision"

    def names(self) -> list[str]:
        return torchvision.models.list_models(module=torchvision.models)

    def make(self, num_classes: int) -> nn.Module:
        extra: dict[str, Any] = {}
        if self.name in ("googlenet", "inception_v3"):
            # They return an auxiliary output too unless told not to.
            extra |= {"aux_logits": False, "init_weights": True, "transform_input": False}
        if self.image_size and self.name.startswith("vit_"):
            extra["image_size"] = self.image_size
        if self.image_size and self.name.startswith("maxvit"):
            extra["input_size"] = (self.image_size, self.image_size)
        return torchvision.models.get_model(self.name, weights=None, num_classes=num_classes, **extra)

    def published(self) -> Preprocessing:
        preset = torchvision.models.get_model_weights(self.name).DEFAULT.transforms()
        return Preprocessing(tuple(preset.mean), tuple(preset.std), preset.crop_size[0], preset.interpolation.value)

    def fixed_size(self) -> bool:
        return self.name.startswith(("vit_", "maxvit"))

    def download(self) -> dict[str, Tensor]:
        weights = torchvision.models.get_model_weights(self.name).DEFAULT
        state = weights.get_state_dict(check_hash=True)
        return {key: value for key, value in state.items() if not key.startswith(("aux1.", "aux2.", "AuxLogits."))}

    def adapt(self, state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
        if not (self.image_size and self.name.startswith("vit_")):
            return state
        patch = network.conv_proj.kernel_size[0]  # type: ignore[union-attr, index]
        return interpolate_embeddings(self.image_size, patch, dict(state))


def check_name(library: str, name: str, names: list[str]) -> None:
    """Refuse a `name` that is not among `names`, with a ValueError that lists similar ones."""
    if name not in names:
        close = get_close_matches(name, names, n=5, cutoff=0.5) or names[:5]
        raise ValueError(f"{library} has no network {name!r}; it has {', '.join(close)} and {len(names)} in all")
