"""How soon ``train.py`` answers, against a start that imports torch and Lightning first.

python scripts/benchmarks/start_up.py
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common import interleaved, print_machine

ROOT = Path(__file__).parent.parent.parent


def timed(*command: str) -> Callable[[], float]:
    """A side that runs a Python command and returns its seconds."""

    def run() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
        return time.perf_counter() - start

    return run


def main() -> None:
    print_machine()
    eager = (
        "import torch, pytorch_lightning, runpy, sys; sys.argv[1:] = ['--help']; "
        "runpy.run_path('train.py', None, '__main__')"
    )
    sides = {
        "--help": timed("train.py", "--help"),
        "--cfg job": timed("train.py", "--cfg", "job"),
        "--help, torch first": timed("-c", eager),
    }
    seconds = interleaved(sides, rounds=5)
    for name, value in seconds.items():
        print(f"{name:>20}: {value:.2f} s")
    print(f"{'ratio':>20}: {seconds['--help, torch first'] / seconds['--help']:.1f}")


if __name__ == "__main__":
    main()
