"""At which size photographs are decoded."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from cv_lab.data.photos import decoded_size
from cv_lab.data.preprocess import Preprocessing
from cv_lab.models.backbones import TimmNetwork
from tests.conftest import PLAIN


def test_photographs_are_decoded_at_the_size_of_the_network() -> None:
    assert decoded_size(None, Preprocessing(size=299), default=64) == 299
    assert decoded_size(None, Preprocessing(), default=64) == 64
    assert decoded_size(100, Preprocessing(), default=64) == 100
    with pytest.raises(ValueError, match=r"data\.image_size=0 must be 1 to 16384 pixels, \[height,width\], or null"):
        decoded_size(0, Preprocessing(), default=64)


def test_a_size_below_that_of_the_network_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert decoded_size(224, Preprocessing(size=224), default=64) == 224
    assert decoded_size(300, Preprocessing(size=224), default=64) == 300
    assert not caplog.records
    assert decoded_size(64, Preprocessing(size=224), default=64) == 64
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "data.image_size=64 pixels and scaled up to the network's 224" in record.getMessage()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["weights=FILE"], "images of 160 x 160 pixels\n"),
        (["weights=FILE", "model.image_size=48"], "images of 48 x 48 pixels\n"),
        (["weights=FILE", "data.image_size=40"], "images of 40 x 40 pixels, scaled to 160 x 160 for the network\n"),
        (["weights=none"], "images of 64 x 64 pixels\n"),
    ],
)
def test_a_trial_says_its_size(train: Callable[..., Path], tmp_path: Path, overrides: list[str], told: str) -> None:
    for split in ("train", "test"):
        for label, name in enumerate(("dark", "light")):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(3):
                colour = 150 * label + 20 * number
                Image.new("RGB", (60, 50), (colour,) * 3).save(tmp_path / split / name / f"{number}.png")
    torch.save(TimmNetwork("test_resnet")(num_classes=2).state_dict(), tmp_path / "net.pt")
    study = train(
        *PLAIN,
        *("task=finetuning", "model=timm", "model.name=test_resnet", "data=folder", f"data.root={tmp_path}"),
        *("data.validation=test", "batch_size=2", "epochs=1", "cache=off"),
        *(override.replace("FILE", str(tmp_path / "net.pt")) for override in overrides),
    )
    (log,) = study.glob("*/train.log")
    assert told in log.read_text()
    assert ("which costs accuracy" in log.read_text()) == ("data.image_size=40" in overrides)
