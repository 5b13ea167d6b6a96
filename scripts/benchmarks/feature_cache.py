"""A study of nine linear probes with features computed once, against the same study with the backbone in the loop.

    python scripts/benchmarks/feature_cache.py tf_efficientnet_lite0.safetensors

Both sides run ``train.py`` on a subset of CIFAR-10: three optimizers by three learning rates, five epochs each. Each
must end with the same accuracies. A third run repeats the study, and must not call the backbone at all. It takes about
40 minutes on two cores; with fewer images what a trial costs of its own weighs more.
"""

import argparse
import json
import pickle
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

import train
from cv_lab.models.cut import CutNetwork


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="weights of the backbone, a file")
    parser.add_argument("--name", default="tf_efficientnet_lite0", help="timm's name of the backbone")
    parser.add_argument("--images", type=int, default=2200, help="of the training set, a tenth of which validates")
    parser.add_argument("--test-images", type=int, default=40)
    parser.add_argument("--size", type=int, default=224, help="side in pixels that images are scaled to")
    parser.add_argument("--data-dir", default="data")
    arguments = parser.parse_args()
    counted = count_passes()
    with tempfile.TemporaryDirectory() as folder:
        shrink(Path(arguments.data_dir), Path(folder), arguments.images, arguments.test_images)
        sides = {"warm-up": ("on", 1), "cached": ("on", 9), "repeated": ("on", 9), "in the loop": ("off", 9)}
        seconds, scores = {}, {}
        for side, (cache, points) in sides.items():
            counted.clear()
            # The warm-up imports what both sides need, and keeps its features elsewhere.
            kept = f"{folder}/{'warm-up' if side == 'warm-up' else 'kept'}"
            seconds[side] = run(arguments, Path(folder), side, cache, points, kept)
            scores[side] = accuracies(Path(folder) / side.replace(" ", "_"))
            print(f"{side}: {seconds[side]:.2f} s, {sum(counted):,} images through the backbone", flush=True)
            assert side != "repeated" or not counted, "the repeated study ran the backbone"
    assert scores["cached"] == scores["repeated"] == scores["in the loop"], scores
    print(f"9 probes x 5 epochs: {seconds['in the loop'] / seconds['cached']:.1f} times as fast with features kept")
    print(f"repeated:            {seconds['in the loop'] / seconds['repeated']:.1f} times")


def shrink(source: Path, target: Path, images: int, test_images: int) -> None:
    """Write the first images of CIFAR-10 as a data set of their own, since no override shortens the test set."""
    name = "cifar-10-batches-py"
    (target / name).mkdir()
    for path in sorted((source / name).iterdir()):
        if path.name == "batches.meta":
            shutil.copy(path, target / name)
        elif path.name == "test_batch" or path.name.startswith("data_batch"):
            with path.open("rb") as file:
                batch = pickle.load(file, encoding="latin1")
            count = test_images if path.name == "test_batch" else images // 5
            with (target / name / path.name).open("wb") as file:
                pickle.dump({key: batch[key][:count] for key in ("data", "labels")}, file)


def count_passes() -> list[int]:
    """A list that grows by the number of images in each call of a backbone with data."""
    counted: list[int] = []
    original = CutNetwork.features

    def features(self: CutNetwork, images: torch.Tensor) -> torch.Tensor:
        if images.device.type != "meta":
            counted.append(len(images))
        return original(self, images)

    CutNetwork.features = features  # type: ignore[method-assign]
    return counted


def run(arguments: argparse.Namespace, folder: Path, side: str, cache: str, points: int, kept: str) -> float:
    """Run one study in this process; its seconds."""
    sweep = ["optimizer=adam,sgd,rmsprop", "lr=1e-2,1e-3,1e-4"] if points > 1 else ["optimizer=adam"]
    sys.argv = [
        "train.py",
        "-m",
        *sweep,
        "task=linear_probing",
        "model=timm",
        f"model.name={arguments.name}",
        f"model.image_size={arguments.size}",
        f"weights='{Path(arguments.weights).absolute()}'",
        "data=cifar10",
        "data.verify_checksum=false",
        f"data_dir='{folder}'",
        "batch_size=64",
        f"epochs={5 if points > 1 else 1}",
        "logger=none",
        "pictures=none",
        "hydra/launcher=basic",  # in this process, where passes are counted
        f"cache={cache}",
        f"cache_dir='{kept}'",
        f"studies_dir='{folder}'",
        f"study={side.replace(' ', '_')}",
        *(["data.train_subset=64", "data.val_subset=16", "trainer.limit_test_batches=1"] if points == 1 else []),
    ]
    start = time.perf_counter()
    train.main()
    return time.perf_counter() - start


def accuracies(study: Path) -> dict[str, float]:
    """Test accuracy of each trial."""
    results = (json.loads(path.read_text()) for path in sorted(study.glob("*/result.json")))
    records = (json.loads(path.read_text())["parameters"] for path in sorted(study.glob("*/trial.json")))
    return {
        f"{record['optimizer']} {record['lr']}": result["metrics"]["test/accuracy"]
        for record, result in zip(records, results, strict=True)
    }


if __name__ == "__main__":
    main()
