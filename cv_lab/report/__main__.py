"""``python -m cv_lab.report STUDY``: write the report of a study, or of several with a page that shows them all."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cv_lab.report.index import studies_in, write_index
from cv_lab.report.page import write_report
from cv_lab.report.wording import clean


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Write report.html, report.md, report.tex, trials.csv and figures/ of studies; of several studies, "
        "or of a folder of studies, also one page that shows them all."
    )
    parser.add_argument("studies", type=Path, nargs="+", help="a study's folder, such as studies/cifar100_optimizer")
    parser.add_argument("--out", type=Path, help="the page of several studies; by default index.html beside them")
    options = parser.parse_args(arguments)
    studies = [study for folder in options.studies for study in studies_in(folder) or [folder]]
    try:
        written = [_report(study) for study in studies]
        if len(studies) > 1 or studies != options.studies:
            path = options.out or _common(options.studies) / "index.html"
            write_index(studies, path)
            print(path)
    except (FileNotFoundError, FileExistsError) as error:
        sys.exit(f"error: {error}")
    if not all(written):
        sys.exit(1)


def _report(study: Path) -> bool:
    """Write a study's report; whether its page could be written."""
    report = write_report(study)
    for note in report.notes:
        print(clean(note), file=sys.stderr)
    page = study / "report.html"
    if page in report.files:
        print(clean(str(page)))
    return page in report.files


def _common(folders: Sequence[Path]) -> Path:
    """The folder that holds the studies."""
    if len(folders) == 1:
        return folders[0]
    return Path(os.path.commonpath([folder.resolve().parent for folder in folders]))


if __name__ == "__main__":
    main()
