"""On a GPU, a step of training or validation mixes no devices and waits for nothing.

Whole trials run on the pretended device. A step is what lies between the ends of two batches: taking, copying and
augmenting a batch, the step itself, and all callbacks.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning import Callback, Trainer

from cv_lab.callbacks.finite import RequireFiniteLoss
from cv_lab.config import plain
from cv_lab.frozen import shared_heads
from cv_lab.labels import IGNORE, ClassCounts
from cv_lab.training.class_weights import with_class_weights
from tests.conftest import PLAIN, composed
from tests.pretended_device import WAITS, Wait, pretended_device

Train = Callable[..., Path]
TINY = ("data.train_count=60", "data.test_count=16", "data.image_size=32", "batch_size=8", "epochs=1")
ON_IT = "+trainer.strategy._target_=tests.pretended_device.strategy"
BACKBONE = ("model=timm", "model.name=test_resnet", "model.image_size=64", "weights=none")
UNET = ("task=semantic_segmentation", "model.width=8")
LOSSES = (
    *("cross_entropy", "weighted_cross_entropy", "focal", "dice", "dice_cross_entropy", "dice_weighted_cross_entropy"),
    *("dice_effective_number", "tversky", "lovasz"),
)
COUNTS = np.array([80, 30, 18])
CASES = {
    "classification": ("model=small_cnn", "model.width=8"),
    "classification on the GPU": ("model=small_cnn", "model.width=8", "data.resident=true"),
    "recipe": (
        *("model=whitened_cnn", "model.widths=[8,8,8]", "augmentation=strong", "label_smoothing=0.1"),
        *("callbacks=[default,ema,progressive_resize]", "callbacks.progressive_resize.sizes=[24]"),
        *("scheduler=onecycle", "trainer.gradient_clip_val=1"),
    ),
    "segmentation": (*UNET, "loss=dice_weighted_cross_entropy"),
    "segmentation on the GPU": (*UNET, "data.resident=true"),
    "segmentation, smp": (
        *("task=semantic_segmentation", "model=smp", "model.encoder=test_efficientnet", "optimizer=sgd"),
        *("trainer.accumulate_grad_batches=2", "callbacks=[default,early_stopping]"),
    ),
    "fine-tuning": (
        *("task=finetuning", *BACKBONE, "task.trained=2", "task.unfreeze_every=1", "augmentation=standard"),
        "epochs=2",
    ),
    "probe": ("task=linear_probing", *BACKBONE, "augmentation=standard"),
    "probe of kept features": ("task=linear_probing", *BACKBONE, "task.knn=3"),
    "probe of kept features on the GPU": ("task=linear_probing", *BACKBONE, "task.knn=3", "data.resident=true"),
}


class Watch(Callback):
    """Count the waits up to the end of each batch."""

    ends: dict[str, list[int]]
    epochs: list[int]

    def __init__(self) -> None:
        Watch.ends, Watch.epochs = {"train": [], "validation": [], "test": []}, []

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        self.epochs.append(trainer.current_epoch)

    def on_train_batch_end(self, *args: Any) -> None:
        self.ends["train"].append(len(WAITS))

    def on_validation_batch_end(self, *args: Any) -> None:
        self.ends["validation"].append(len(WAITS))

    def on_test_batch_end(self, *args: Any) -> None:
        self.ends["test"].append(len(WAITS))

    @classmethod
    def step(cls, kind: str, number: int) -> list[Wait]:
        """The waits of the step that ends as number `number`, as Python counts."""
        ends = cls.ends[kind]
        return WAITS[ends[number - 1] : ends[number]]


@pytest.fixture
def steps(train: Train, tmp_path: Path) -> Callable[..., dict[str, list[Wait]]]:
    """Run a trial on the device; returns the waits of one step of each kind."""

    def run(*overrides: str) -> dict[str, list[Wait]]:
        watch = f"+callbacks.watch._target_={__name__}.Watch"
        with pretended_device():
            train(*TINY, *PLAIN, *overrides, ON_IT, watch, f"cache_dir={tmp_path}/cache")
        assert [wait.operation for wait in WAITS].count("synchronize") == len(Watch.epochs)
        # The last step of training but one: at the last, its end is waited for, so that the time is right.
        return {"train": Watch.step("train", -2), "validation": Watch.step("validation", -1)} | {
            "test": Watch.step("test", -1)
        }

    return run


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES)
def test_no_step_waits(steps: Callable[..., dict[str, list[Wait]]], overrides: tuple[str, ...]) -> None:
    for kind, waits in steps(*overrides).items():
        assert not waits, f"{kind}: {', '.join(map(str, waits))}"


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_waits(name: str) -> None:
    config = plain(composed(f"loss={name}").loss)
    weights = with_class_weights(config, ("background", "cat", "dog"), lambda: ClassCounts(COUNTS, COUNTS))
    with pretended_device() as waits:
        loss = instantiate(weights).to("gpu")
        logits = torch.randn(2, 3, 8, 8).to("gpu").requires_grad_()
        mask = torch.randint(0, 3, (2, 8, 8)).index_fill(2, torch.tensor(0), IGNORE).to("gpu")
        before = len(waits)
        loss(logits, mask).backward()
        assert not waits[before:]


@pytest.mark.slow
@pytest.mark.parametrize("resident", ["true", "false"])
def test_mask_rcnn_waits_in_torchvisions_code(steps: Callable[..., dict[str, list[Wait]]], resident: str) -> None:
    """The number of its boxes is known by the device alone, so that torchvision's proposals and heads wait for it.

    Beside them, one wait tells how many objects augmentation has left, and what was found is taken to main memory.
    """
    waits = steps(
        *("task=instance_segmentation", "data.val_fraction=0.3", "model.channels=8", "model.backbone.width=8"),
        *("model.box_channels=16", "model.mask_layers=[8]", f"data.resident={resident}"),
    )
    theirs = ("torchvision.models.detection.", "torchvision.ops.")
    for kind, own in (("train", 1), ("validation", None), ("test", None)):
        assert any(wait.module.startswith(theirs) for wait in waits[kind])
        rest = [wait for wait in waits[kind] if not wait.module.startswith(theirs)]
        targets = [wait for wait in rest if wait.function == "targets_of"]
        found = [wait for wait in rest if "cv_lab.tasks.instance_segmentation.found" in wait.stack]
        assert len(targets) == 1
        assert len(rest) == len(targets) + len(found)
        assert own is None or len(rest) == own


def test_heads_that_are_trained_together_do_not_wait_in_a_step(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their epoch is one step of Lightning's; it waits no oftener if it has more batches."""

    points = [
        {"optimizer": {"_target_": f"torch.optim.{name}", "_partial_": True, "lr": 0.01}, "scheduler": None}
        for name in ("Adam", "SGD")
    ]
    told = OmegaConf.create({"launcher": {"together": points}})  # by the launcher of a study
    monkeypatch.setattr(shared_heads, "HydraConfig", SimpleNamespace(get=lambda: told))
    counts = []
    for batch_size in (4, 16):
        with pretended_device() as waits:
            task = ("task=linear_probing", *BACKBONE, f"batch_size={batch_size}", f"study={batch_size}")
            train(*TINY, *PLAIN, *task, ON_IT, f"cache_dir={tmp_path}/cache{batch_size}")
            counts.append(len([wait for wait in waits if "cv_lab.frozen.heads.train_heads" in wait.stack]))
    assert counts[0] == counts[1] > 0


def test_losses_are_looked_at_together_every_fifty_steps() -> None:
    class Module:
        device = torch.device("gpu:0")

    class Trainer:
        global_step = 0

    check = RequireFiniteLoss()
    with pretended_device() as waits:
        loss, batch = torch.ones((), device="gpu"), {"index": torch.arange(4, device="gpu")}
        for step in range(1, 101):
            check.on_train_batch_end(Trainer(), Module(), {"loss": loss}, batch, step)  # type: ignore[arg-type]
            assert len(waits) == step // 50
