"""The report's parts put together, as a page and as Markdown, and written to the study's folder."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cv_lab.files import write_csv, write_text
from cv_lab.report import answers, background, figures, pictures, tables
from cv_lab.report.finding import WARNINGS
from cv_lab.report.findings import details, opening
from cv_lab.report.pdf import LETTERS, to_pdf
from cv_lab.report.sections import Section, sections
from cv_lab.report.templates import render
from cv_lab.report.trouble import reason
from cv_lab.report.wording import clean, count, seconds, slug
from cv_lab.study.read import FIGURES, Study, read_study
from cv_lab.study.trials import Trial

CHARTS: tuple[tuple[str, Callable[[Section], Sequence[figures.Figure]]], ...] = (
    ("the figures of what was varied", figures.swept),
    ("the curves", figures.curves),
    ("the figures of the cost", figures.cost),
    ("the calibration", answers.calibration),
    ("the figure of the classes", figures.classes),
)


@dataclass(frozen=True)
class Report:
    """What was written, and one sentence for all that was left out or could not be written."""

    files: list[Path]
    notes: list[str]


def write_report(folder: Path) -> Report:
    """Write a study's report into its folder: page, Markdown, LaTeX, ``trials.csv``, ``findings.json``, ``figures/``.

    Raises:
        FileNotFoundError: if the folder is no study.
    """
    study = read_study(folder)
    notes = list(study.notes)
    parts = [_part(study, section, i, notes) for i, section in enumerate(sections(study.trials, notes), 1)]
    files: list[Path] = []

    def write(path: Path, how: Callable[[Path], None]) -> None:
        """A file that cannot be written, as on a full disk, does not keep the next one from being tried."""
        try:
            how(path)
            files.append(path)
        except OSError as error:
            notes.append(f"{path.name} could not be written: {error.strerror or error}.")

    write(folder / "trials.csv", lambda path: write_csv(path, tables.csv_rows(study.trials)))
    findings = json.dumps(_findings(parts), indent=2, default=float) + "\n"
    write(folder / "findings.json", partial(write_text, text=clean(findings)))
    strange = False
    for part in parts:
        for figure in part["figures"]:
            path, picture = folder / FIGURES / part["files"][figure.key], clean(figure.svg())
            write(path, partial(write_text, text=picture))
            write(path.with_suffix(".pdf"), partial(write_text, text=to_pdf(picture)))
            strange |= picture.encode(LETTERS, "replace").decode(LETTERS) != picture
    if strange:
        notes.append(f"{FIGURES}/*.pdf show “?” for letters that are not Western European; *.svg show all letters.")
    content = {"title": folder.resolve().name, "facts": facts(study), "sections": parts, "warnings": WARNINGS}
    content |= {"command_of_study": background.study_command(folder)}
    for name, template in (
        ("report.md", "page.md.jinja"),
        ("report.tex", "page.tex.jinja"),
        ("report.html", "page.html.jinja"),
    ):
        page = clean(render(template, {**content, "notes": notes}))
        write(folder / name, partial(write_text, text=page))
    return Report(files, notes)


def _part(study: Study, section: Section, index: int, notes: list[str]) -> dict[str, Any]:
    """What the templates need of a section."""

    def attempt(what: str, make: Callable[[], Any], otherwise: Any) -> Any:
        # A report is made of folders that anything may have happened to; the rest of it must still appear.
        try:
            return make()
        except Exception as error:
            notes.append(f"{what} of {section.task} are left out: {type(error).__name__}: {error}.")
            return otherwise

    key = f"s{index}"
    charts = [figure for what, make in CHARTS for figure in attempt(what, partial(make, section), [])]
    prefix = f"{index}_{slug(section.task)}_"
    failed = [trial for trial in section.trials if trial.status == "failed"]
    return {
        "key": key,
        "title": section.title,
        "shared": tables.shared(section.trials),
        "opening": attempt("the answer", lambda: opening(section), []),
        "findings": attempt("the findings", lambda: details(section), []),
        "results": attempt("the results", lambda: tables.results_table(section), tables.Table([], [])),
        "trials": tables.trials_table(section) if section.seeds > 1 else None,
        "cost": attempt("the costs", lambda: tables.cost_table(section), tables.Table([], [])),
        "figures": charts,
        "files": {figure.key: f"{prefix}{figure.key}.svg" for figure in charts},
        "anchors": {"trials", *(figure.key for figure in charts)} | ({"failures"} if failed else set()),
        "data": attempt("the data", lambda: background.data_table(section), tables.Table([], [])),
        "environment": attempt(
            "the versions", lambda: background.environment_table(section.trials), tables.Table([], [])
        ),
        "commands": attempt("the commands", lambda: background.commands(section), []),
        "seed": attempt("the seeds", lambda: background.seed_sentence(section), ""),
        "methods": attempt("the methods", lambda: background.methods(section), ""),
        "glossary": background.glossary(section),
        "answers": [
            (title, table)
            for title, make in (
                ("Precision, recall and F1 of each class", answers.class_table),
                ("Test images that the best setting is most wrong about", answers.mistakes_table),
                ("Images that one of the two best settings gets right", answers.differences_table),
            )
            if (table := attempt("the answers", lambda make=make: make(section), None))  # type: ignore[misc]
        ],
        "classes": attempt("the figures of each class", lambda: _classes(section, notes), []),
        "pictures": [_pictures(study, section, trial, notes) for trial in _shown(section)],
        "failures": _failures(section, failed),
    }


def _shown(section: Section) -> list[Trial]:
    return [t for t in pictures.representatives(section, pictures.SHOWN) if (t.folder / "predictions").is_dir()]


def _pictures(study: Study, section: Section, trial: Trial, notes: list[str]) -> dict[str, Any]:
    matrix = section.matrices.get(trial.name)
    return {
        "label": section.label(trial),
        "name": trial.name,
        "pictures": pictures.pictures(study.folder, trial, notes),
        "pairs": matrix.pairs() if matrix else [],
    }


def _classes(section: Section, notes: list[str]) -> list[tuple[str, tables.Table]]:
    """A table for each figure that trials give of each class."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for trial in pictures.representatives(section, pictures.CLASSES):
        for name, values in pictures.per_class(trial, notes).items():
            if values:
                found.setdefault(name, {})[section.label(trial)] = values
    return tables.per_class_tables(section, found)


def _failures(section: Section, failed: list[Trial]) -> list[dict[str, Any]]:
    """Failures by their reason, with the traceback of the first."""
    by_reason: dict[str, list[Trial]] = {}
    for trial in failed:
        by_reason.setdefault(reason(trial), []).append(trial)
    found = []
    for why, trials in by_reason.items():
        error = trials[0].record.get("error")
        error = error if isinstance(error, dict) else {}
        found.append(
            {
                "count": count(len(trials), "trial"),
                "labels": [section.label(trial) for trial in trials],
                "name": trials[0].name,
                "reason": why,
                "type": str(error.get("type") or "failed"),
                "traceback": str(error.get("traceback") or ""),
            }
        )
    return found


def _findings(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The content of ``findings.json``."""
    return [
        {
            "section": part["title"],
            "kind": finding.kind,
            "sentence": finding.text,
            "numbers": finding.numbers,
            "test": finding.test or None,
            "trials": finding.trials,
        }
        for part in parts
        for finding in (*part["opening"], *part["findings"])
    ]


def facts(study: Study) -> list[str]:
    """What the head of the report says of the whole study."""
    by_status = Counter(trial.status for trial in study.trials)
    facts = [
        f"{count(len(study.trials), 'trial')}: " + ", ".join(f"{n} {status}" for status, n in by_status.most_common())
    ]
    spent = sum(s for trial in study.trials if (s := trial.figure("seconds", "fit")) is not None)
    if spent:
        facts.append(f"{spent / 60:.1f} minutes of training" if spent >= 60 else f"{seconds(spent)} s of training")
    for field in ("device", "git_commit"):
        values = {str(t.record[field]) for t in study.trials if t.record.get(field) is not None}
        if len(values) == 1:
            value = values.pop()
            facts.append(f"code {value[:10]}{_dirty(study)}" if field == "git_commit" else value)
    ends = [str(t.record["end"]) for t in study.trials if t.record.get("end")]
    if ends:
        facts.append(f"last trial ended {max(ends)[:16].replace('T', ' ')}")
    return facts


def _dirty(study: Study) -> str:
    return " with uncommitted changes" if any(t.record.get("git_dirty") for t in study.trials) else ""
