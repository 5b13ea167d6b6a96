"""Networks of torchvision and timm by name, with what their publishers say of them."""

import re
from abc import ABC, abstractmethod
from difflib import get_close_matches
from functools import partial
from inspect import signature
from typing import Any
from unittest.mock import patch

import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from cv_lab.data.preprocess import Preprocessing
from cv_lab.models.cut import copy_to_meta

# Heads that help in training alone: networks are made without them, files may hold them.
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.", "aux_head.")
# How torchvision named layers of its DenseNets when it published their weights: denselayer1.norm.1 is now .norm1.
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)")


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
    def adapt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """`state`, as files and publishers have it, with the names and shapes that the network has.

        Old names are replaced, auxiliary heads left out, and position embeddings interpolated to the network's size.
        What is of another network may stay as it is: whoever loads it sees that it does not fit.

        Raises:
            ValueError: if `state` cannot be adapted.
        """


def preprocessing_of(model: object) -> Preprocessing:
    """What `model`, which makes networks, says of their images; nothing if it is not a :class:`NetworkFactory`."""
    return model.preprocessing if isinstance(model, NetworkFactory) else Preprocessing()


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
        return timm.create_model(self.name, pretrained=False, num_classes=num_classes, **self._options())

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.image_size and self.fixed_size():
            options["img_size"] = self.image_size  # convolutional networks take any size, and have no such argument
        if self.name.startswith("volo_"):
            options["use_aux_head"] = False
        return options

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

    def adapt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        # Each family has a filter of its own for what was published, which timm gives to this function alone.
        with patch("timm.models._builder.load_pretrained") as load, torch.device("meta"):
            timm.create_model(self.name, pretrained=True, **self._options())
        (network,), how = load.call_args
        state = {key: value for key, value in state.items() if not key.startswith(AUXILIARY)}
        if (fit := how["filter_fn"]) is not None:
            try:
                state = fit(state, network) if len(signature(fit).parameters) > 1 else fit(state)
            except Exception as error:  # filters stumble over names and shapes of other networks in any way
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                raise ValueError(f"the weights do not fit {self.name}: timm cannot adapt them ({reason})") from error
        own = network.state_dict()
        return state if how["strict"] else {key: value for key, value in state.items() if key in own}


class TorchvisionNetwork(NamedNetwork):
    """A classifier of torchvision, such as ``resnet18`` or ``vit_b_16``."""

    library = "torchvision"

    def names(self) -> list[str]:
        return torchvision.models.list_models(module=torchvision.models)

    def make(self, num_classes: int) -> nn.Module:
        options: dict[str, Any] = {}
        if self.name in ("googlenet", "inception_v3"):
            # They return auxiliary outputs unless told not to. Their published weights want images normalised to a
            # mean and deviation of 0.5, which the network does itself.
            options |= {"aux_logits": False, "init_weights": True, "transform_input": self.pretrained}
        if self.name.startswith("vit_"):
            options["image_size"] = self.preprocessing.size
        if self.name.startswith("maxvit"):
            options["input_size"] = (self.preprocessing.size, self.preprocessing.size)
        network = torchvision.models.get_model(self.name, weights=None, num_classes=num_classes, **options)
        if self.name.startswith("mnasnet"):
            # Its own method refuses what does not tell the version of the network, as safetensors cannot.
            network._load_from_state_dict = partial(nn.Module._load_from_state_dict, network)
        return network

    def published(self) -> Preprocessing:
        preset = torchvision.models.get_model_weights(self.name).DEFAULT.transforms()
        return Preprocessing(tuple(preset.mean), tuple(preset.std), preset.crop_size[0], preset.interpolation.value)

    def fixed_size(self) -> bool:
        return self.name.startswith(("vit_", "maxvit"))

    def download(self) -> dict[str, Tensor]:
        return torchvision.models.get_model_weights(self.name).DEFAULT.get_state_dict(check_hash=True)

    def adapt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        state = {key: value for key, value in state.items() if not key.startswith(AUXILIARY)}
        if self.name.startswith("densenet"):
            state = {OLD_DENSENET.sub(r"\1", key): value for key, value in state.items()}
        if self.name.startswith("vit_") and {"encoder.pos_embedding", "conv_proj.weight"} <= state.keys():
            size = self.preprocessing.size
            assert size is not None
            state = interpolate_embeddings(size, state["conv_proj.weight"].shape[-1], dict(state))
        return state


def check_name(library: str, name: str, names: list[str]) -> None:
    """Refuse a `name` that is not among `names`, with a ValueError that lists similar ones."""
    if name not in names:
        close = get_close_matches(name, names, n=5, cutoff=0.5) or names[:5]
        raise ValueError(f"{library} has no network {name!r}; it has {', '.join(close)} and {len(names)} in all")
