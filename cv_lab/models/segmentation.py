"""Networks for semantic segmentation: a small U-Net, and the networks of smp and torchvision by name.

All map float (N, 3, H, W) of any size to logits, float (N, K, H, W). Their `encoder` may be pretrained, frozen, or
trained at a learning rate of its own.
"""

import logging
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from cv_lab.data.preprocess import Preprocessing
from cv_lab.models.backbones import NamedNetwork, TimmNetwork, refuse_unknown
from cv_lab.models.weights import fit_state_dict, start_from

# timm warns of the weights of heads, which encoders do not have; other weights that do not fit are refused before.
logging.getLogger("timm.models._builder").setLevel(logging.ERROR)


class Segmenter(nn.Module, ABC):
    """Base of all networks for semantic segmentation.

    Attributes:
        class_part: name of the module whose parameters depend on the classes.
    """

    class_part: str

    @property
    @abstractmethod
    def encoder(self) -> nn.Module:
        """The part that computes features, without the decoder and the head."""

    def start_from(self, state: dict[str, Tensor], source: str) -> None:
        """Start from the weights `state`, read from `source`: of the whole network or of its encoder's classifier.

        Raises:
            ValueError: if they are of neither.
        """
        if any(key.startswith(f"{self.class_part}.") for key in state):
            start_from(self, state, source, [self.class_part], fresh=False)
        else:
            self.start_encoder_from(state, source)

    def start_encoder_from(self, state: dict[str, Tensor], source: str) -> None:
        """Start the encoder from the weights of the classifier that it was cut from."""
        fit_state_dict(self.encoder, state, source)


class _Convolutions(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            convolution = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class SmallUNet(Segmenter):
    """A U-Net (Ronneberger et al., 2015) that trains from scratch on a CPU within minutes.

    It differs from the paper's network in padded convolutions, in batch normalisation, and in its resolution, which is
    half that of the image, for a quarter of the cost: the first convolution has a stride of 2, the last is transposed.

    Args:
        num_classes: K.
        width: channels at half the resolution; each level below has twice as many.
        depth: number of levels below.
    """

    class_part = "head"

    def __init__(self, num_classes: int, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        stem = nn.Sequential(nn.Conv2d(3, width, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        downs = [nn.Sequential(nn.MaxPool2d(2), _Convolutions(w // 2, w)) for w in widths[1:]]
        self.stages = nn.ModuleList([nn.Sequential(stem, _Convolutions(width, width)), *downs])
        self.ups = nn.ModuleList(nn.ConvTranspose2d(w, w // 2, 2, stride=2) for w in reversed(widths[1:]))
        self.decoder = nn.ModuleList(_Convolutions(w, w // 2) for w in reversed(widths[1:]))
        self.head = nn.ConvTranspose2d(width, num_classes, 2, stride=2)
        self.multiple = 2 ** (depth + 1)

    @property
    def encoder(self) -> nn.Module:
        return self.stages

    def forward(self, images: Tensor) -> Tensor:
        x = _pad(images, self.multiple)
        levels: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        for up, convolutions, skipped in zip(self.ups, self.decoder, reversed(levels[:-1]), strict=True):
            x = convolutions(torch.cat([skipped, up(x)], 1))
        return _cut(self.head(x), images)


class SmpNetwork(TimmNetwork):
    """Makes an architecture of segmentation-models-pytorch over an encoder of timm from ``num_classes``.

    The published weights and the normalisation of images are those of the encoder.

    Args:
        architecture: such as ``Unet``, ``FPN``, ``DeepLabV3Plus``, ``UPerNet`` or ``Segformer``.
        encoder: any network of timm with features of several scales.
        options: of the architecture, such as `decoder_channels`.

    Raises:
        ValueError: if a name is not known.
    """

    def __init__(self, architecture: str = "Unet", encoder: str = "mobilenetv3_small_100", **options: Any) -> None:
        import segmentation_models_pytorch as smp  # a second, which trials of other networks need not spend

        super().__init__(encoder)
        names = {name.__name__: name for name in smp.MODEL_ARCHITECTURES_MAPPING.values()}
        refuse_unknown("segmentation-models-pytorch", architecture, list(names))
        self.architecture, self.options = names[architecture], options

    def make(self, num_classes: int, pretrained: bool) -> "SmpSegmenter":
        encoder = f"tu-{self.name}"  # smp's mark of timm's networks
        network = self.architecture(encoder_name=encoder, encoder_weights=None, classes=num_classes, **self.options)
        return SmpSegmenter(network, self.name)

    def preprocessing(self, pretrained: bool) -> Preprocessing:
        return replace(super().preprocessing(pretrained), size=None)

    def adapt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        whole = any(key.startswith("network.") for key in state)
        return state if whole else super().adapt(state)


class SmpSegmenter(Segmenter):
    """A network of :class:`SmpNetwork`; images of any size are extended to a multiple of 32 and the result is cut.

    Args:
        network: of segmentation-models-pytorch.
        name: of its encoder.
    """

    class_part = "network.segmentation_head"

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    @property
    def encoder(self) -> nn.Module:
        return self.network.encoder  # type: ignore[return-value]

    def start_encoder_from(self, state: dict[str, Tensor], source: str) -> None:
        from segmentation_models_pytorch.encoders import get_encoder

        # timm renames parameters where it takes features only; from a file of the whole network it renames them alike.
        whole = timm.create_model(self.name)
        config = timm.get_pretrained_cfg(self.name)
        assert config is not None
        heads = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ())
        start_from(whole, state, source, heads)
        donor = get_encoder(
            f"tu-{self.name}",
            depth=len(self.encoder.out_channels) - 1,  # type: ignore[arg-type]
            weights=True,  # those of the overlay
            pretrained_cfg_overlay={"state_dict": whole.state_dict()},
        )
        fit_state_dict(self.encoder, donor.state_dict(), source)

    def forward(self, images: Tensor) -> Tensor:
        return _cut(self.network(_pad(images, 32)), images)


class TorchvisionSegmentationNetwork(NamedNetwork):
    """Makes a segmentation network of torchvision, such as ``lraspp_mobilenet_v3_large``.

    The published weights are those of the whole network, trained on COCO images with VOC's 21 classes.

    Args:
        name: torchvision's name of the network.

    Raises:
        ValueError: if torchvision has no such network.
    """

    library = "torchvision"

    def __init__(self, name: str = "lraspp_mobilenet_v3_large") -> None:
        super().__init__(name)

    def names(self) -> list[str]:
        return torchvision.models.list_models(module=torchvision.models.segmentation)

    def make(self, num_classes: int, pretrained: bool) -> "TorchvisionSegmenter":
        return TorchvisionSegmenter(
            torchvision.models.get_model(self.name, weights=None, weights_backbone=None, num_classes=num_classes)
        )

    def published(self) -> Preprocessing:
        preset = torchvision.models.get_model_weights(self.name).DEFAULT.transforms()
        return Preprocessing(tuple(preset.mean), tuple(preset.std))

    def fixed_size(self) -> bool:
        return False

    def download(self) -> dict[str, Tensor]:
        return torchvision.models.get_model_weights(self.name).DEFAULT.get_state_dict(check_hash=True)

    def adapt(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        if not any(key.startswith("backbone.") for key in state):  # not torchvision's, but the lab's or a classifier's
            return state
        return {f"network.{key}": value for key, value in state.items() if not key.startswith("aux_classifier.")}


class TorchvisionSegmenter(Segmenter):
    """A network of :class:`TorchvisionSegmentationNetwork`.

    Args:
        network: of torchvision.
    """

    class_part = "network.classifier"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def encoder(self) -> nn.Module:
        return self.network.backbone  # type: ignore[return-value]

    def start_encoder_from(self, state: dict[str, Tensor], source: str) -> None:
        # MobileNets keep their features under "features."; of those, and of ResNets, the backbone leaves out the end.
        features = {key.removeprefix("features."): value for key, value in state.items()}
        wanted = self.encoder.state_dict()
        fit_state_dict(self.encoder, {key: value for key, value in features.items() if key in wanted}, source)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)["out"]


def _pad(images: Tensor, multiple: int) -> Tensor:
    """Repeat the last rows and columns until both sides are multiples."""
    height, width = images.shape[2:]
    if height % multiple == 0 and width % multiple == 0:
        return images
    return F.pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def _cut(logits: Tensor, images: Tensor) -> Tensor:
    return logits[:, :, : images.shape[2], : images.shape[3]]
