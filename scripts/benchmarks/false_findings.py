"""How often a report claims what is not so, and how often it finds what is.

Simulates studies in which nothing has an effect, runs the report's own code on them, and prints the share of reports
that claim a winner, an effect of a parameter, or an interaction; then the same for studies with a true effect of one
standard deviation over seeds:

    python scripts/benchmarks/false_findings.py --studies 1000

Each row draws random numbers of its own. The tests of two equal settings are exact, so that their share is 5 % and not
below: a simulated share is above it in half of all runs. The 95 % interval beside it says how far chance reaches.
"""

import argparse
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cv_lab.report.evidence import Evidence
from cv_lab.report.finding import CLAIMS
from cv_lab.report.findings import findings
from cv_lab.report.sections import sections
from cv_lab.report.statistics import wilson
from cv_lab.study.trials import Trial

SEEDS = (1, 2, 3, 5, 20)
DEVIATION = 0.03  # over seeds, three points of accuracy
Cells = NDArray[np.floating]
NOTHING = {
    "a grid of 3 x 3 equal settings": (np.zeros((3, 3)), 0.0, 10_000),
    "the same, where seeds differ for all settings alike": (np.zeros((3, 3)), 0.02, 10_000),
    "the same, with 50 validation images": (np.zeros((3, 3)), 0.0, 50),
    "two equal settings": (np.zeros((1, 2)), 0.0, 10_000),
    "two equal settings far ahead of seven others": (np.array([[0.0, 0.0, *[-10.0] * 7]]), 0.0, 10_000),
    "two equal settings, with 50 validation images": (np.zeros((1, 2)), 0.0, 50),
}
SOMETHING = {
    "winner, of two settings": ("winner", np.array([[1.0, 0.0]])),
    "effect of one of three values in a grid of 3 x 3": ("effect", np.tile([1.0, 0.0, 0.0], (3, 1))),
    "interaction in a grid of 2 x 2": ("interaction", np.eye(2)),
}


def study(cells: Cells, seeds: int, shared: float, images: int, random: np.random.Generator) -> list[Trial]:
    """The trials of a study.

    Args:
        cells: means of the settings in deviations over seeds, float (optimizers, rates).
        seeds: trials of each setting.
        shared: deviation of what a seed adds to all settings, which share its split and its initialisation.
        images: of the validation set, to whose shares scores are rounded.
        random: source of the noise.
    """
    scores = 0.7 + DEVIATION * (cells + random.normal(size=(seeds, *cells.shape)))
    scores = np.round(images * (scores + shared * random.normal(size=(seeds, 1, 1)))) / images
    return [
        trial({"optimizer": f"o{i}", "lr": 10.0**-j, "seed": s + 1}, float(scores[s, i, j]))
        for (s, i, j) in np.ndindex(*scores.shape)
    ]


def trial(parameters: dict[str, object], score: float) -> Trial:
    """A finished trial as its folder would tell it."""
    result = {
        "monitor": {"name": "val/accuracy", "mode": "max", "best": score, "epoch": 1, "validation": "split"},
        "metrics": {"val/accuracy": score, "test/accuracy": score},
        "seconds": {"fit": 10.0},
        "units": {f"{split}/accuracy": {"unit": "share", "mode": "max"} for split in ("val", "test")},
    }
    name = ",".join(f"{key}={value}" for key, value in parameters.items())
    record = {"status": "completed", "parameters": {"task": "simulated", **parameters}, "overrides": []}
    return Trial(Path("nowhere") / name, record, result, epochs=[])


def claimed(cells: Cells, seeds: int, studies: int, shared: float = 0.0, images: int = 10_000) -> dict[str, float]:
    """The share of reports with a claim of each kind; arguments as of :func:`study`."""
    random = np.random.default_rng([seeds, images, zlib.crc32(cells.tobytes()), int(1000 * shared)])
    counts: Counter[str] = Counter()
    for _ in range(studies):
        (section,) = sections(study(cells, seeds, shared, images, random), [])
        counts.update({finding.kind for finding in findings(section)} & CLAIMS)
    return {kind: counts[kind] / studies for kind in sorted(CLAIMS)}


def ahead_on_images(studies: int, images: int = 500, settings: int = 9) -> float:
    """The share of reports that call a network ahead on the same images, where all are equally good, one seed each."""
    random = np.random.default_rng(0)
    count = 0
    for _ in range(studies):
        trials = [trial({"lr": 10.0**-i, "seed": 1}, float(random.normal(0.7, DEVIATION))) for i in range(settings)]
        (section,) = sections(trials, [])
        truth = random.integers(0, 2, images)
        for one in section.finished:
            prediction = np.where(random.random(images) < 0.7, truth, 1 - truth)
            arrays = {"truth": truth, "prediction": prediction}
            known = section.evidence[one.name] = Evidence(images, ["a", "b"], arrays, b"the same")
            scores = known.scores("accuracy")
            assert scores is not None
            section.tested[one.name] = scores
        count += any("It is ahead of" in finding.text for finding in findings(section))
    return count / studies


def main() -> None:
    parser = argparse.ArgumentParser(description="Count false and true claims of reports.")
    parser.add_argument("--studies", type=int, default=1000, help="simulated for each row")
    studies = parser.parse_args().studies
    print(f"{studies} studies a row; in brackets the 95 % interval of a share.\n")
    print("Nothing has an effect: 5 % of reports at most should claim a winner, an effect or an interaction.")
    for name, (cells, shared, images) in NOTHING.items():
        print(f"  {name}")
        for seeds in SEEDS:
            shares = claimed(cells, seeds, studies, shared, images)
            words = [
                f"{kind} {_share(v, studies)}" for kind, v in shares.items() if kind == "winner" or not cells.any()
            ]
            print(f"    {seeds:2} seeds:  " + "  ".join(words))
    print(f"  nine equal networks on 500 images, one seed each: ahead {_share(ahead_on_images(studies), studies)}")
    print("\nA true effect of one standard deviation over seeds: the share of reports that claim it.")
    for name, (kind, cells) in SOMETHING.items():
        power = {seeds: claimed(cells, seeds, studies)[kind] for seeds in SEEDS}
        print(f"  {name}:  " + "  ".join(f"{seeds} seeds {100 * v:.0f} %" for seeds, v in power.items()))


def _share(value: float, studies: int) -> str:
    """A share of studies in per cent with its interval."""
    low, high = wilson(value, studies)
    return f"{100 * value:4.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
