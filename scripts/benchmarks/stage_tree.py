"""What a study of several lengths and rates costs when trials share their beginnings, against trials run alone.

python scripts/benchmarks/stage_tree.py                                  # CIFAR-100, 10,000 images
python scripts/benchmarks/stage_tree.py --data shapes data.train_count=400 data.test_count=100 data.image_size=32

Both sides train the same trials in one process each, by one command: the second side gives each length a study of its
own, in which there is nothing to share. Their metrics are compared to the last bit.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import print_machine

ROOT = Path(__file__).parent.parent.parent
LENGTHS, RATES = (5, 10, 15), ("1e-2", "3e-3", "1e-3")


def train(folder: str, study: str, lengths: tuple[int, ...], options: list[str]) -> float:
    """Run a study and return its seconds."""
    command = [sys.executable, "train.py", "-m", f"studies_dir={folder}", f"study={study}", *options]
    command += [f"epochs={','.join(map(str, lengths))}", f"lr={','.join(RATES)}"]
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - start


def rows(folder: str, studies: str) -> dict[tuple[int, float], list[dict[str, str]]]:
    """The table of epochs of each trial, by its number of epochs and its learning rate."""
    tables = {}
    for path in Path(folder).glob(f"{studies}/*/trial.json"):
        config = json.loads(path.read_text())["config"]
        with (path.parent / "metrics.csv").open() as file:
            tables[config["epochs"], config["lr"]] = list(csv.DictReader(file))
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar100")
    parser.add_argument("--rounds", type=int, default=1)
    arguments, options = parser.parse_known_args()
    options = [f"data={arguments.data}", "trainer=cpu", "logger=none", "pictures=none", *options]
    if arguments.data == "cifar100":
        options = ["data.train_subset=10000", *options]
    print_machine()
    for scheduler in ("none", "wsd"):
        for number in range(arguments.rounds):
            with tempfile.TemporaryDirectory() as folder:
                chosen = [*options, f"scheduler={scheduler}", f"cache_dir={folder}/cache"]
                # Decode what both sides read; alternate which side is first.
                train(folder, "first", (1,), chosen)
                seconds = {}
                for side in ("shared", "alone") if number % 2 == 0 else ("alone", "shared"):
                    parts = [LENGTHS] if side == "shared" else [(length,) for length in LENGTHS]
                    seconds[side] = sum(train(folder, f"{side}{i}", part, chosen) for i, part in enumerate(parts))
                equal = rows(folder, "shared*") == rows(folder, "alone*")
            share = seconds["shared"] / seconds["alone"]
            print(
                f"scheduler={scheduler}: {seconds['shared']:.1f} s shared, {seconds['alone']:.1f} s alone, "
                f"{share:.2f} of it, {len(LENGTHS) * len(RATES)} trials {'equal' if equal else 'NOT EQUAL'}"
            )


if __name__ == "__main__":
    main()
