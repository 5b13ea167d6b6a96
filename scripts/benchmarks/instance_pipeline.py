"""How many images a second the data of instance segmentation gives, and how many the network takes.

python scripts/benchmarks/instance_pipeline.py [data_dir=DATA]

With data_dir=DATA, of COCO's images in DATA/coco beside the embedded scenes.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import TINY, interleaved, print_machine
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from cv_lab.config import register_config
from cv_lab.data.base import ImageData
from cv_lab.data.in_memory import train_loader
from cv_lab.tasks.instance_segmentation import InstanceSegmentation, targets_of
from cv_lab.trial.build import build_task

CONF = Path(__file__).parent.parent.parent / "conf"
STEPS = 1 if TINY else 4  # batches a round


def measure(*overrides: str) -> None:
    """Print both rates for a config."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", ["task=instance_segmentation", "trial_dir=unused", "study=s", *overrides])
    data: ImageData = instantiate(config.data, target="instances")
    start = time.perf_counter()
    data.setup()
    decoding = time.perf_counter() - start
    assert data.train is not None
    task = build_task(config, data.classes)
    assert isinstance(task, InstanceSegmentation)
    optimizer = task.make_optimizer()
    batches = iter(train_loader(data.train, config.batch_size, seed=1, epoch=0))

    def batch() -> dict:
        nonlocal batches
        try:
            raw = next(batches)
        except StopIteration:
            batches = iter(train_loader(data.train, config.batch_size, seed=1, epoch=0))  # type: ignore[arg-type]
            raw = next(batches)
        assert data.augmentation is not None
        changed = data.augmentation(raw)
        return {**changed, "image": data.normalise(changed["image"])}

    def rate(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        for _ in range(STEPS):
            work()
        return STEPS * config.batch_size / (time.perf_counter() - start)

    fixed = batch()

    def step() -> None:
        optimizer.zero_grad()
        losses = task.model.losses(fixed["image"], targets_of(fixed))
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    task.train()
    medians = interleaved({"data": lambda: rate(batch), "network": lambda: rate(step)}, rounds=3)
    height, width = data.train.images.shape[2:]
    images = len(data.train) + len(data.test)
    print(
        f"{type(data).__name__}, {height} x {width} pixels, batches of {config.batch_size}: read or drawn once at "
        f"{images / decoding:.0f} images a second; then {medians['data']:.0f} a second augmented and batched, and "
        f"{medians['network']:.1f} a second trained on"
    )


def main() -> None:
    register_config()
    print_machine()
    measure(*(["data.train_count=40", "batch_size=4"] if TINY else ["data.train_count=600"]), "data.test_count=100")
    if len(sys.argv) > 1:
        photographs = [
            "data=coco",
            "model=light_mask_rcnn",
            "batch_size=4",
            "data.train_images=100",
            "data.test_images=20",
        ]
        measure(*photographs, *sys.argv[1:])


if __name__ == "__main__":
    main()
