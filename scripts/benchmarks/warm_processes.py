"""What a study of nine short trials costs as one command, against nine commands of their own.

python scripts/benchmarks/warm_processes.py
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count, product
from pathlib import Path

from common import TINY, interleaved, print_machine

ROOT = Path(__file__).parent.parent.parent
SHORT = ("data.train_count=400", "data.test_count=100", "data.image_size=32", "epochs=1", "trainer=cpu")
OPTIMIZERS, RATES = (("adam",), ("1e-2",)) if TINY else (("adam", "sgd", "rmsprop"), ("1e-2", "1e-3", "1e-4"))


def train(folder: str, *overrides: str) -> None:
    """Run ``train.py`` and let its output go."""
    command = [sys.executable, "train.py", *overrides, *SHORT, f"studies_dir={folder}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def timed(run: Callable[[str], None]) -> Callable[[], float]:
    """A side that does `run` in a study of its own and returns its seconds."""
    numbers = count()

    def side() -> float:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            run(f"{folder}/{next(numbers)}")
            return time.perf_counter() - start

    return side


def one_command(jobs: int) -> Callable[[str], None]:
    return lambda folder: train(
        folder, "-m", f"optimizer={','.join(OPTIMIZERS)}", f"lr={','.join(RATES)}", f"jobs={jobs}"
    )


def nine_commands(folder: str) -> None:
    for optimizer, rate in product(OPTIMIZERS, RATES):
        train(folder, "study=s", f"optimizer={optimizer}", f"lr={rate}")


def main() -> None:
    print_machine()
    sides = {
        "nine commands": timed(nine_commands),
        "one command": timed(one_command(1)),
        "one command, jobs=2": timed(one_command(2)),
    }
    seconds = interleaved(sides, rounds=3)
    for name, value in seconds.items():
        print(f"{name:>20}: {value:6.1f} s, 1 / {seconds['nine commands'] / value:.2f} of nine commands")


if __name__ == "__main__":
    main()
