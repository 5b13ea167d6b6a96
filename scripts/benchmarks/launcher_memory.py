"""Whether the memory of a study's launcher grows with the number of its trials.

python scripts/benchmarks/launcher_memory.py --trials 50
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TINY = ("data.train_count=200", "data.test_count=40", "data.image_size=32", "batch_size=32", "epochs=1", "trainer=cpu")
QUIET = ("pictures=none", "logger=none", "model=small_cnn", "model.width=4")


def resident_mb(pid: int) -> float:
    """Resident memory of a process, from Linux."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1e3 if found else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    trials = parser.parse_args().trials
    seeds = ",".join(map(str, range(trials)))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", "-m", *TINY, *QUIET, f"studies_dir={folder}", "study=s", f"seed={seeds}"]
        process = subprocess.Popen([*command, "jobs=2"], cwd=ROOT, stdout=subprocess.DEVNULL)
        seen: dict[int, float] = {}  # by the number of completed trials
        while process.poll() is None:
            done = len(list(Path(folder).glob("s/*/result.json")))
            if done and done not in seen:
                seen[done] = resident_mb(process.pid)
            time.sleep(0.1)
    for done, memory in seen.items():
        if done in (min(seen), max(seen)) or done % 10 == 0:
            print(f"{done:4d} of {trials} trials: {memory:.1f} MB")
    print(f"growth: {seen[max(seen)] - seen[min(seen)]:+.1f} MB")


if __name__ == "__main__":
    main()
