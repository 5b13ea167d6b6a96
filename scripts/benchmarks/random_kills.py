"""Kill a study's trials, its launcher and its fork server at random moments, and see whether anything is lost.

python scripts/benchmarks/random_kills.py --kills 20

Each kill (SIGKILL) is followed by the same command. The outcome must equal that of a study left alone: as many trials,
and each with the same metrics, bit by bit. When a study is completed before all kills are done, the next one begins.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent.parent
SWEEP = ("optimizer=adam,sgd,adamw", "seed=1,2", "jobs=2")
TRIAL = (
    *(
        "data.train_count=400",
        "data.test_count=100",
        "data.image_size=32",
        "batch_size=32",
        "epochs=5",
        "model=small_cnn",
        "model.width=8",
    ),
    *("scheduler=onecycle", "augmentation=strong", "callbacks=[default,ema,early_stopping]", "trainer=cpu"),
)


def start(folder: Path, study: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "train.py", "-m", *TRIAL, *SWEEP, f"studies_dir={folder}", f"study={study}"]
    log = (folder / f"{study}.log").open("ab")
    return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def records(study: Path) -> dict[str, Any]:
    """What the trials say of themselves, by their folders' names."""
    return {path.parent.name: json.loads(path.read_text()) for path in study.glob("*/trial.json")}


def outcome(study: Path) -> dict[str, Any]:
    """All that must be equal: each trial's epochs and final metrics, without seconds."""
    found: dict[str, Any] = {}
    for name in records(study):
        result = json.loads((study / name / "result.json").read_text())
        kept = {key: result[key] for key in ("monitor", "metrics", "last", "images", "parameters", "flops_per_image")}
        found[name] = {"epochs": (study / name / "metrics.csv").read_text(), **kept}
    return found


def kill_something(study: Path, launcher: subprocess.Popen[bytes]) -> str:
    """Kill the launcher, its fork server or one of its trials."""
    victims = {launcher.pid: "launcher"}
    with suppress(psutil.Error):  # the launcher has just ended
        children = psutil.Process(launcher.pid).children()
        victims |= {child.pid: "server" for child in children if "forkserver" in " ".join(child.cmdline())}
    victims |= {record["pid"]: "trial" for record in records(study).values() if record["status"] == "running"}
    victim = random.choice(list(victims))
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:  # that process has just ended
        return kill_something(study, launcher)
    return victims[victim]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        begun = time.perf_counter()
        assert start(folder, "whole").wait() == 0, (folder / "whole.log").read_text()
        duration = time.perf_counter() - begun
        expected = outcome(folder / "whole")
        print(f"left alone: {len(expected)} trials in {duration:.0f} s")
        kills, number = 0, 0
        while kills < arguments.kills:
            number += 1
            study = f"killed-{number}"
            while True:
                process = start(folder, study)
                try:
                    code = process.wait(random.uniform(0, duration) if kills < arguments.kills else None)
                except subprocess.TimeoutExpired:
                    victim = kill_something(folder / study, process)
                    kills += 1
                    code = process.wait()
                    statuses = sorted(record["status"] for record in records(folder / study).values())
                    print(f"kill {kills:2d}, {victim:>8} of {study}: exit code {code}, {' '.join(statuses)}")
                if code == 0:
                    break
            assert outcome(folder / study) == expected, f"{study} differs"
            attempts = sum(len(record["attempts"]) for record in records(folder / study).values())
            print(f"{study}: {len(expected)} trials, equal to those left alone, after {attempts} broken attempts")


if __name__ == "__main__":
    main()
