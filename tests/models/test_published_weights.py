"""Published weights load as torchvision and timm load them."""

import argparse
import copy
import re
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models
from torchvision.transforms.v2.functional import normalize

from cv_lab.models.backbones import TimmNetwork, TorchvisionNetwork
from cv_lab.models.cut import CutNetwork
from cv_lab.models.mask_rcnn import LightMaskRCNN
from cv_lab.models.segmentation import TorchvisionSegmentationNetwork
from cv_lab.models.weights import read_state_dict, start_from

State = dict[str, Tensor]
CLASSIFIERS = list_models(module=torchvision.models)
# RegNets compute their widths with tensors, so they cannot be made on the meta device.
ON_META = [name for name in CLASSIFIERS if not name.startswith("regnet")]
SMALL = 9e6  # parameters: what takes less than a second
ONE_OF_ITS_FAMILY = ("inception_v3", "resnet18")  # run although it is larger


def of_any_size(name: str) -> object:
    """`name`, marked as huge if the network is large, and as slow if it is not the smallest of its family."""
    large = get_model_weights(name).DEFAULT.meta["num_params"] > SMALL and name not in ONE_OF_ITS_FAMILY
    marks = [pytest.mark.slow, pytest.mark.huge] if large else [] if name in QUICK else [pytest.mark.slow]
    return pytest.param(name, marks=marks)


def smallest_of_each_family() -> set[str]:
    sizes = {name: get_model_weights(name).DEFAULT.meta["num_params"] for name in CLASSIFIERS}
    smallest: dict[str, str] = {}
    for name in sorted(CLASSIFIERS, key=sizes.__getitem__):
        smallest.setdefault(re.split(r"[_\d]", name)[0], name)
    return set(smallest.values())


QUICK = smallest_of_each_family()


def as_published(name: str, state: State) -> State:
    """`state` with the names that torchvision's files have, which are older than its networks."""
    old = {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}
    published: OrderedDict[str, Tensor] = OrderedDict()
    for key, value in state.items():
        if name.startswith("densenet"):
            key = re.sub(r"(denselayer\d+\.(norm|conv))(\d)", r"\1.\3", key)
        if name.startswith("vit_"):
            key = re.sub(r"mlp\.[03]\.", lambda m: old[m[0]], key)
        if not key.endswith("num_batches_tracked"):  # which torch has since 0.4.1
            published[key] = value
    published._metadata = {"": {"version": 2}}  # type: ignore[attr-defined]  # without it torchvision's MNASNet refuses
    return published


def whole(name: str) -> nn.Module:
    """torchvision's network as its files have it, with auxiliary heads."""
    options = {"aux_logits": True, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    size = get_model_weights(name).DEFAULT.meta["min_size"][0] if name.startswith("vit_") else None
    return get_model(name, weights=None, **options, **({"image_size": size} if size else {}))


@pytest.mark.parametrize("name", [of_any_size(name) for name in CLASSIFIERS])
def test_a_published_file_gives_the_logits_of_torchvisions_builder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = whole(name)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.add_(0.02 * torch.randn_like(value))  # away from the 0 and 1 that normalisation starts at
    published = as_published(name, network.state_dict())
    torch.save(published, tmp_path / "published.pth")
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: copy.copy(published))
    builders = get_model(name, weights="DEFAULT").eval()
    make = TorchvisionNetwork(name)
    ours = make(num_classes=1000).eval()
    size = make.published().size if make.fixed_size() else 96
    images = torch.rand(2, 3, size, size)
    preset, own = get_model_weights(name).DEFAULT.transforms(), make.published()
    assert own.mean is not None
    assert own.std is not None
    with torch.inference_mode():
        expected = builders(normalize(images, preset.mean, preset.std))
        assert expected.std() > 0
        for loaded in (read_state_dict(tmp_path / "published.pth"), make.default_weights()):
            start_from(ours, make.adapt(loaded), "a file")
            logits = ours(normalize(images, list(own.mean), list(own.std)))
            # The two of Google are normalised once by the lab and twice by torchvision.
            tolerance = 1e-4 * expected.abs().max().item() if name in ("googlenet", "inception_v3") else 0
            torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in ON_META])
def test_names_and_shapes_of_every_published_file_fit(name: str) -> None:
    make = TorchvisionNetwork(name)
    with torch.device("meta"):
        state = as_published(name, whole(name).state_dict())
        network = CutNetwork(make(num_classes=3), partial(nn.Linear, out_features=3))
    start_from(network.backbone, make.adapt(state), "a file", network.cut_at)


@pytest.mark.parametrize("name", ["mnasnet0_5", "shufflenet_v2_x0_5"])
def test_safetensors_that_tell_no_versions_fit_too(name: str, tmp_path: Path) -> None:
    donor = get_model(name, weights=None)
    save_file(donor.state_dict(), tmp_path / "a.safetensors")
    make = TorchvisionNetwork(name)
    network = make(num_classes=1000)
    start_from(network, make.adapt(read_state_dict(tmp_path / "a.safetensors")), "a file")
    assert all(torch.equal(value, donor.state_dict()[key]) for key, value in network.state_dict().items())


def test_a_vision_transformer_is_made_for_the_size_of_its_weights() -> None:
    make = TorchvisionNetwork("vit_h_14")
    with torch.device("meta"):
        assert make(num_classes=2).image_size == make.preprocessing(pretrained=True).size == 518


NESTED: dict[str, Callable[[State], object]] = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
    "parallel": lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
    "compiled": lambda state: {"state_dict": {f"_orig_mod.module.{key}": value for key, value in state.items()}},
    "averaged": lambda state: {
        "model": {key: torch.zeros_like(value) for key, value in state.items()},
        "model_ema": {"n_averaged": torch.tensor(5)} | {f"module.{key}": value for key, value in state.items()},
    },
}


@pytest.mark.parametrize("kind", NESTED)
def test_state_dicts_are_found_in_what_training_scripts_save(kind: str, tmp_path: Path) -> None:
    state = timm.create_model("test_resnet", num_classes=7).state_dict()
    torch.save(NESTED[kind](state), tmp_path / "a.pth")
    read = read_state_dict(tmp_path / "a.pth")
    assert read.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in read.items())


def timm_old(name: str, state: State) -> State:
    """`state` with the names or shapes that its published file has."""
    if name == "test_convnext":  # those of the paper's own files
        renamed = {}
        for key, value in state.items():
            key = re.sub(r"^stem\.", "downsample_layers.0.", key)
            key = re.sub(r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1.", key)
            key = re.sub(r"^stages\.(\d+)\.blocks\.", r"stages.\1.", key)
            key = key.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv").replace("head.norm", "norm")
            renamed[key.replace("head.fc", "head")] = value
        return renamed
    if name == "crossvit_tiny_240":
        return {re.sub(r"^(pos_embed|cls_token)_", r"\1.", key): value for key, value in state.items()}
    if name == "densenet121":  # torchvision's
        return as_published(name, state)
    if name == "volo_d1_224":
        return state | {"aux_head.weight": torch.zeros(1000, 384), "aux_head.bias": torch.zeros(1000)}
    assert name == "inception_v3"
    return state | {"AuxLogits.fc.weight": torch.zeros(1000, 768)}


LARGER = ("crossvit_tiny_240", "densenet121", "volo_d1_224", "inception_v3")


@pytest.mark.parametrize("name", ["test_convnext", *(pytest.param(name, marks=pytest.mark.slow) for name in LARGER)])
def test_files_go_through_timms_filter_of_their_family(name: str) -> None:
    make = TimmNetwork(name)
    donor = make(num_classes=1000)
    network = CutNetwork(make(num_classes=3), partial(nn.Linear, out_features=3))
    start_from(network.backbone, make.adapt(timm_old(name, donor.state_dict())), "a file", network.cut_at)
    own = network.backbone.state_dict()
    assert own
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    assert all(torch.equal(own[key], donor.state_dict()[key]) for key in own.keys() - counters)


def test_weights_of_another_family_are_refused_in_words() -> None:
    state = TimmNetwork("test_resnet")(num_classes=3).state_dict()
    for name in ("test_vit", "swin_tiny_patch4_window7_224", "levit_128s", "test_convnext"):
        make = TimmNetwork(name)
        network = make(num_classes=3)
        with pytest.raises(ValueError, match="do not fit"):
            start_from(network, make.adapt(state), "a file")


def test_published_files_of_torchvisions_segmenters_fit() -> None:
    make = TorchvisionSegmentationNetwork("deeplabv3_mobilenet_v3_large")
    donor = get_model(make.name, weights=None, weights_backbone=None, aux_loss=True)
    network = make(num_classes=21)
    network.start_from(make.adapt(donor.state_dict()), "a file")
    own = network.network.state_dict()
    assert all(torch.equal(value, donor.state_dict()[key]) for key, value in own.items())


def test_the_classifier_under_a_mask_rcnn_takes_its_published_file() -> None:
    make = LightMaskRCNN(TorchvisionNetwork("densenet121"))
    donor = get_model("densenet121", weights=None)
    network = make(num_classes=2)
    network.start_from(make.adapt(as_published("densenet121", donor.state_dict())), "a file")
    own = network.extractor.state_dict()
    assert torch.equal(own["features.conv0.weight"], donor.features.conv0.weight)
