"""One page of several studies: the answer and the table of results of each, with links to their reports."""

import os
from collections.abc import Sequence
from pathlib import Path

from cv_lab.files import write_text
from cv_lab.report.finding import WARNINGS
from cv_lab.report.findings import opening
from cv_lab.report.page import facts
from cv_lab.report.sections import sections
from cv_lab.report.tables import results_table
from cv_lab.report.templates import render
from cv_lab.report.wording import clean
from cv_lab.study.read import read_study

MARK = '<meta name="generator" content="cv-lab index of studies">'


def studies_in(folder: Path) -> list[Path]:
    """The studies in a folder of studies; none if it is a study itself, or holds no study."""
    if not folder.is_dir() or _is_study(folder):
        return []
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and _is_study(path)]


def write_index(studies: Sequence[Path], path: Path) -> list[str]:
    """Write a page of several studies.

    Args:
        studies: their folders.
        path: of the page.

    Returns:
        one sentence for everything that could not be read.

    Raises:
        FileExistsError: if `path` is a file that this function did not write.
    """
    if path.exists() and MARK not in path.read_text(errors="replace")[:1000]:
        raise FileExistsError(f"{path} is another file: move it away, or name another one with --out")
    notes: list[str] = []
    entries = []
    for folder in studies:
        study = read_study(folder)
        notes += [f"{folder.name}: {note}" for note in study.notes]
        parts = [
            {
                "title": section.title,
                "opening": opening(section),
                "table": results_table(section).narrow(),
            }
            for section in sections(study.trials, notes)
        ]
        link = os.path.relpath(folder / "report.html", path.parent)
        entries.append({"name": folder.resolve().name, "link": link, "facts": facts(study), "sections": parts})
    content = {"title": path.resolve().parent.name, "mark": MARK, "studies": entries, "notes": notes}
    write_text(path, clean(render("index.html.jinja", {**content, "warnings": WARNINGS})))
    return notes


def _is_study(folder: Path) -> bool:
    return any(folder.glob("*/trial.json"))
