"""``python -m cv_lab.report STUDY``: write the report of a study."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cv_lab.report.page import write_report
from cv_lab.report.wording import clean


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write report.html, report.md, trials.csv and figures/ of a study.")
    parser.add_argument("study", type=Path, help="its folder, such as studies/cifar100_optimizer")
    study = parser.parse_args(arguments).study
    try:
        report = write_report(study)
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
    for note in report.notes:
        print(clean(note), file=sys.stderr)
    page = study / "report.html"
    if page not in report.files:
        sys.exit(1)
    print(page)


if __name__ == "__main__":
    main()
