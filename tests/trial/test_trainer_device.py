"""A trial on the CPU of a machine with a GPU leaves the GPU alone."""

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback

from cv_lab.callbacks.timing import Timing
from cv_lab.training.seeds import seed_all
from cv_lab.trial.hardware import peak_memory_mb, resolve_precision
from tests.conftest import PLAIN, TINY

Train = Callable[..., Path]
# What Lightning itself asks in each trial, with answers.
ASKED_BY_OTHERS: dict[str, Any] = {
    "is_available": True,
    "device_count": 1,
    "empty_cache": None,
    "is_initialized": False,
    "get_rng_state_all": [],
    "set_rng_state_all": None,
}


class SeeGPUs(Callback):
    """Keep what a trial tells CUDA to see."""

    seen: str | None

    def on_train_start(self, *args: Any) -> None:
        SeeGPUs.seen = os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.fixture
def gpu_machine(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let torch say that there is a GPU, and refuse whatever else is asked of it; lists what was."""
    asked: list[str] = []

    def refuse(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            asked.append(name)
            raise AssertionError(f"torch.cuda.{name} was asked")

        return call

    for name, value in vars(torch.cuda).items():
        if inspect.isfunction(value) and not name.startswith("_"):
            monkeypatch.setattr(torch.cuda, name, refuse(name))
    for name, answer in ASKED_BY_OTHERS.items():
        monkeypatch.setattr(torch.cuda, name, lambda *args, answer=answer: answer)
    # What torch's optimizers ask of a GPU that they see in each step.
    monkeypatch.setattr(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda self: None)
    return asked


LIGHT = ("model.channels=8", "model.backbone.width=8", "model.box_channels=16", "model.mask_layers=[8]")


@pytest.mark.parametrize(
    "task",
    [
        ("model=small_cnn", "model.width=8"),
        ("task=instance_segmentation", *LIGHT, "data.train_count=40", "batch_size=8"),
        ("task=linear_probing", "model=timm", "model.name=test_resnet", "model.image_size=64", "weights=none"),
    ],
    ids=["classification", "instance segmentation", "probe"],
)
def test_a_trial_on_the_cpu_asks_no_gpu(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu_machine: list[str], task: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    see = f"+callbacks.see._target_={__name__}.SeeGPUs"
    plain = (*TINY, *task, *PLAIN, "precision=auto", f"cache_dir={tmp_path}/cache", see)
    (folder,) = train(*plain, "trainer=cpu").iterdir()
    assert not gpu_machine
    assert SeeGPUs.seen == ""  # Lightning too sees none
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert json.loads((folder / "result.json").read_text())["peak_memory_mb"] > 100  # of main memory


def test_auto_precision_goes_by_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert resolve_precision("auto", "auto") == resolve_precision("auto", "gpu") == "16-mixed"
    assert resolve_precision("auto", "cpu") == "bf16-mixed"
    assert resolve_precision("64-true", "gpu") == "64-true"


def test_peak_memory_is_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1e6 * (device.index + 3))
    assert peak_memory_mb(torch.device("cuda:1")) == 4
    assert peak_memory_mb(torch.device("cpu")) > 100


def test_seeds_are_torchs() -> None:
    seed_all(7, torch.device("cpu"))
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), drawn)


def test_images_per_second_wait_for_the_device_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waited = [0.0], []

    def synchronize() -> None:
        waited.append(clock[0])
        clock[0] += 10  # what the device still has to do

    monkeypatch.setattr("cv_lab.callbacks.timing.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace(synchronize=synchronize))
    timing, module = Timing(), SimpleNamespace(device=torch.device("cuda"))
    for _ in range(2):
        trainer: Any = SimpleNamespace(world_size=1, is_last_batch=False)
        timing.on_train_epoch_start(trainer, module)  # type: ignore[arg-type]
        for number in range(3):
            clock[0] += 1
            trainer.is_last_batch = number == 2
            timing.on_train_batch_end(trainer, module, None, {"image": [0] * 4}, number)  # type: ignore[arg-type]
        clock[0] += 100  # validation
        timing.on_train_epoch_end(trainer, module)  # type: ignore[arg-type]
    assert len(waited) == 2
    assert timing.train_seconds == 2 * (3 + 10)
    assert timing.images == 24
