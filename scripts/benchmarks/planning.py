"""CPU seconds that a study of many trials takes before its first trial starts, and when it is looked through again.

python scripts/benchmarks/planning.py --trials 1000

The trials are not trained: their folders are filled with records of completed trials.
"""

import argparse
import sys
import tempfile
import time
from typing import Any

from common import print_machine

from cv_lab.files import write_json
from cv_lab.report.summary import StudySummary
from cv_lab.study.launcher import ProcessLauncher
from cv_lab.study.processes import Runner
from cv_lab.train import main as train

STEPS = 5  # seeds for each rate


def complete(runner: Runner) -> None:
    """Pretend that all trials were run."""
    for job in runner.waiting:
        write_json(job.record.path, {**job.record.fields, "status": "completed"})
        write_json(job.record.folder / "result.json", {"schema": 1})


def look(folder: str, trials: int) -> float:
    """Plan the study and return the CPU seconds until its first trial would start, or it ends."""
    rates = ",".join(f"{number}e-6" for number in range(1, trials // STEPS + 1))
    seeds = ",".join(str(seed) for seed in range(STEPS))
    start = time.process_time()
    ends: list[float] = []

    def end(*arguments: Any, **options: Any) -> None:
        ends.append(time.process_time() - start)

    def run(runner: Runner) -> None:
        end()
        complete(runner)

    Runner.until_done, StudySummary.on_multirun_end = run, end  # type: ignore[method-assign,assignment]
    train(["-m", f"lr={rates}", f"seed={seeds}", f"studies_dir={folder}", "study=planned"])
    return ends[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    arguments = parser.parse_args()
    ProcessLauncher._announce = lambda *arguments: None  # type: ignore[method-assign]
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("until the first trial starts", "looked through again"):
            print(f"{arguments.trials} trials, {name}: {look(folder, arguments.trials):.1f} s of CPU", file=sys.stderr)


if __name__ == "__main__":
    main()
