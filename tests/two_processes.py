"""Run trials, each by two processes on the CPU: a file for ``torch.distributed.run`` with a list of lists of overrides.

Its processes run one trial after another, which saves most of the time that they take to start.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEVICES = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


def run_in_two(trials: Sequence[Sequence[str]], folder: Path) -> str:
    """Run trials, given by their overrides, in two processes; returns what they print.

    Trials that fail, as some should, leave their records; the others are not kept from running.
    """
    file = folder / "trials.json"
    file.write_text(json.dumps([[*trial, *DEVICES] for trial in trials]))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", __file__, file]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    import train

    for overrides in json.loads(Path(sys.argv[1]).read_text()):
        sys.argv = ["train.py", *overrides]
        try:
            train.main()
        except SystemExit as end:
            print("exit", end.code)
