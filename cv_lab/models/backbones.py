"""Networks of torchvision and timm by name, with their published weights and preprocessing."""

import re
from abc import ABC, abstractmethod
from dataclasses import replace
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
from cv_lab.labels import first_line
from cv_lab.models.meta import copy_to_meta
from cv_lab.models.weights import saved_preprocessing

OF_GOOGLE = ("googlenet", "inception_v3")
# Auxiliary heads, used only in training: networks are made without them, but files may hold them.
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.", "aux_head.")
# In published weights of torchvision's DenseNets, layers have older names: denselayer1.norm.1 is now denselayer1.norm1.
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(?=[12]\.)")


class NetworkFactory(ABC):
    """Makes networks from ``num_classes``, and knows where weights for them come from."""

    @abstractmethod
    def __call__(self, num_classes: int, pretrained: bool = False) -> nn.Module:
        """Make a network with random weights.

        Args:
            num_classes: K.
            pretrained: whether weights will be loaded into it; defaults of some networks depend on that.
        """

    @abstractmethod
    def preprocessing(self, pretrained: bool) -> Preprocessing:
        """The preprocessing of images for the network, with published weights or without."""

    @abstractmethod
    def default_weights(self) -> dict[str, Tensor]:
        """Published weights, downloaded on first use.

        Raises:
            ValueError: if there are none, or they cannot be downloaded.
        """

    @abstractmethod
    def adapt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert `state`, as files and publishers have it, to the names and shapes of the network.

        Old names are replaced, auxiliary heads left out, and position embeddings interpolated to the network's size.
        Parameters of another network may stay as they are: loading them fails.

        Raises:
            ValueError: if `state` cannot be converted.
        """


def preprocessing_of(model: object, weights: str) -> Preprocessing:
    """The preprocessing of images for a network that starts from `weights`.

    Args:
        model: makes the network; if it is not a :class:`NetworkFactory`, images are only normalised.
        weights: "none", "default", or a file. The network of a trial's checkpoint gets images as that trial did.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be loaded safely.
    """
    saved = None if weights in ("none", "default") else saved_preprocessing(weights)
    if not isinstance(model, NetworkFactory):
        return saved or Preprocessing()
    if saved is None:
        return model.preprocessing(weights != "none")
    scales = model.preprocessing(pretrained=True).size is not None  # networks that give pixels or boxes never do
    return replace(saved, size=model.preprocessing(pretrained=False).size or (saved.size if scales else None))


class NamedNetwork(NetworkFactory):
    """A network of a library; called with ``num_classes`` it makes one with random weights.

    Args:
        name: as the library calls it.
        image_size: side in pixels to which images are scaled; None takes the published size where the network gets
            published weights or takes no other size, and else leaves images as they are.

    Raises:
        ValueError: if the library has no network of that name.
    """

    library: str

    def __init__(self, name: str, image_size: int | None = None) -> None:
        self.name, self.image_size = name, image_size
        self.check_name()

    def __call__(self, num_classes: int, pretrained: bool = False) -> nn.Module:
        """A network with random weights.

        Raises:
            ValueError: if it cannot be made for `image_size`.
        """
        if self.image_size is None or not self.fixed_size():
            return self.make(num_classes, pretrained)
        try:  # before weights are adapted to the size
            network = self.make(num_classes, pretrained)
            copy_to_meta(network)(torch.empty(1, 3, self.image_size, self.image_size, device="meta"))
        except Exception as error:  # libraries fail in their own ways, deep inside
            raise ValueError(
                f"{self.name} takes no images of model.image_size={self.image_size} pixels ({first_line(error)}): it "
                f"was published for {self.published().size}"
            ) from error
        return network

    def preprocessing(self, pretrained: bool) -> Preprocessing:
        """The preprocessing of images for the network, with published weights or without."""
        published = self.published()
        size = self.image_size or (published.size if pretrained or self.fixed_size() else None)
        if not pretrained:
            return Preprocessing(size=size, interpolation=published.interpolation)
        return replace(published, size=size)

    def check_name(self) -> None:
        """Raise a ValueError with similar names if the library has no network of this name."""
        refuse_unknown(self.library, self.name, self.names())

    @abstractmethod
    def names(self) -> list[str]:
        """All networks of the library."""

    @abstractmethod
    def make(self, num_classes: int, pretrained: bool) -> nn.Module:
        """The network with random weights."""

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
            ValueError: if there are none, or they cannot be downloaded.
        """
        try:
            return self.download()
        except Exception as error:
            raise ValueError(
                f"the weights that {self.library} publishes for {self.name} could not be downloaded "
                f"({first_line(error)}): give a file of them with weights=FILE, or train from scratch with weights=none"
            ) from error


class TimmNetwork(NamedNetwork):
    """A network of timm, such as ``resnet18`` or ``vit_base_patch16_224``.

    A tag behind the name, as in ``resnet18.a1_in1k``, chooses among several published weights.
    """

    library = "timm"

    def names(self) -> list[str]:
        return timm.list_models()

    def check_name(self) -> None:
        """Raise a ValueError with similar names if timm has no network of this name, or no weights of this tag."""
        name, _, tag = self.name.partition(".")
        refuse_unknown(self.library, name, self.names())
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{name}.*")]
        if tag and tag not in tags:
            raise ValueError(
                f"timm publishes no weights {tag!r} of {name}: give the name {name} or one of "
                + (", ".join(f"{name}.{known}" for known in tags) or "another network")
            )

    def __call__(self, num_classes: int, pretrained: bool = False) -> nn.Module:
        """A network with random weights.

        Raises:
            ValueError: if it cannot be made for `image_size`, or its name has a tag but it gets no weights.
        """
        name, _, tag = self.name.partition(".")
        if tag and not pretrained:
            raise ValueError(
                f"{self.name} names published weights, but weights=none trains from scratch: give the name {name}, or "
                "weights=default"
            )
        return super().__call__(num_classes, pretrained)

    def make(self, num_classes: int, pretrained: bool) -> nn.Module:
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
        # Each family has a filter of its own for published files, which timm passes to this function alone.
        with patch("timm.models._builder.load_pretrained") as load, torch.device("meta"):
            timm.create_model(self.name, pretrained=True, **self._options())
        (network,), how = load.call_args
        state = {key: value for key, value in state.items() if not key.startswith(AUXILIARY)}
        if (fit := how["filter_fn"]) is not None:
            try:
                state = fit(state, network) if len(signature(fit).parameters) > 1 else fit(state)
            except Exception as error:  # filters fail on names and shapes of other networks in any way
                raise ValueError(
                    f"the weights do not fit {self.name}: timm cannot adapt them ({first_line(error)})"
                ) from error
        own = network.state_dict()
        return state if how["strict"] else {key: value for key, value in state.items() if key in own}


class TorchvisionNetwork(NamedNetwork):
    """A classifier of torchvision, such as ``resnet18`` or ``vit_b_16``."""

    library = "torchvision"

    def names(self) -> list[str]:
        return torchvision.models.list_models(module=torchvision.models)

    def make(self, num_classes: int, pretrained: bool) -> nn.Module:
        options: dict[str, Any] = {}
        size = self.preprocessing(pretrained).size
        if self.name in OF_GOOGLE:
            options |= {"aux_logits": False, "init_weights": True}  # they return auxiliary outputs by default
        if self.name.startswith("vit_"):
            options["image_size"] = size
        if self.name.startswith("maxvit"):
            options["input_size"] = (size, size)
        network = torchvision.models.get_model(self.name, weights=None, num_classes=num_classes, **options)
        if self.name.startswith("mnasnet"):
            # Its own method refuses state dicts without the version of the network, which safetensors cannot hold.
            network._load_from_state_dict = partial(nn.Module._load_from_state_dict, network)
        return network

    def published(self) -> Preprocessing:
        preset = torchvision.models.get_model_weights(self.name).DEFAULT.transforms()
        # torchvision normalises images for these with ImageNet's figures, and the network with `transform_input` undoes
        # that and normalises them again with 0.5, as they were trained.
        mean, std = ((0.5,) * 3, (0.5,) * 3) if self.name in OF_GOOGLE else (tuple(preset.mean), tuple(preset.std))
        return Preprocessing(mean, std, preset.crop_size[0], preset.interpolation.value)

    def fixed_size(self) -> bool:
        return self.name.startswith(("vit_", "maxvit"))

    def download(self) -> dict[str, Tensor]:
        return torchvision.models.get_model_weights(self.name).DEFAULT.get_state_dict(check_hash=True)

    def adapt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        state = {key: value for key, value in state.items() if not key.startswith(AUXILIARY)}
        if self.name.startswith("densenet"):
            state = {OLD_DENSENET.sub(r"\1", key): value for key, value in state.items()}
        if self.name.startswith("vit_") and {"encoder.pos_embedding", "conv_proj.weight"} <= state.keys():
            size = self.preprocessing(pretrained=True).size
            assert size is not None
            state = interpolate_embeddings(size, state["conv_proj.weight"].shape[-1], dict(state))
        return state


def refuse_unknown(library: str, name: str, names: list[str]) -> None:
    """Raise a ValueError that lists similar names if `name` is not among `names`."""
    if name not in names:
        close = get_close_matches(name, names, n=5, cutoff=0.5) or names[:5]
        raise ValueError(f"{library} has no network {name!r}; it has {', '.join(close)} and {len(names)} in all")
