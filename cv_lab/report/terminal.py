"""What a trial and a study print on the terminal when they have ended."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from cv_lab.report.claims import answer
from cv_lab.report.sections import Section, sections
from cv_lab.report.tables import Table, note, results_table, seconds_per_percent
from cv_lab.report.trouble import WITHOUT_RESULT, stopped, summary
from cv_lab.report.wording import clean, seconds
from cv_lab.study.trials import Trial

VALIDATED_ON_TEST = (
    "Validated on the test set, which therefore chose the epoch: the test figures are no unbiased estimate."
)
GAP = 2  # between columns, in characters


def print_trial(trial: Trial) -> None:
    """Print the outcome of a single run."""
    assert trial.result is not None
    (section,) = sections([trial], [])
    name, test = section.monitor, f"test/{section.metric}"
    tested = f"{section.unit(test).value(trial.metric(test))} {section.unit(test).interval(section.interval([trial]))}"
    extra = trial.figure("seconds", "features")
    print(
        f"best epoch {trial.figure('monitor', 'epoch'):g} of {trial.figure('last', 'epoch'):g}: "
        f"{name} {section.unit(name).value(trial.best)}, {test} {tested.strip()}, "
        f"in {seconds(trial.figure('seconds', 'fit'))} s{_efficiency(section, trial)}"
    )
    if extra is not None:
        cost = _efficiency(section, trial, with_features=True)
        print(f"features took {seconds(extra)} s, once for all trials{cost}")
    if section.validated_on_test:
        print(VALIDATED_ON_TEST)


def print_table(trials: Sequence[Trial]) -> None:
    """Print the trials of a study, the best first, then what the report says first, and why some have no result.

    Trials that differ in their seed alone share a row, with mean and sample standard deviation.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=1000)  # in a file or a pipe nothing need be left out
    for section in sections(trials, []):
        if section.judged:
            console.print(to_grid(results_table(section), console.width))
            words = " ".join(finding.text for finding in (*answer(section), *summary(section)))
            console.print(clean(words), highlight=False, markup=False, soft_wrap=not console.is_terminal)
        for finding in stopped(section):
            print(clean(finding.text))
        for trial in section.trials:
            if trial.status == "failed" or trial.status in WITHOUT_RESULT:
                print(clean(f"{trial.status}: {trial.folder}{_why(section, trial)}"))


def _why(section: Section, trial: Trial) -> str:
    words = note(section, trial)
    error = trial.record.get("error")
    again = " (retry_failed=true runs it again)" if isinstance(error, dict) and error.get("repeats") else ""
    return f": {words}{again}" if words else ""


def _efficiency(section: Section, trial: Trial, with_features: bool = False) -> str:
    """Seconds for each percentage point of the monitored metric, with the word for a single trial's line."""
    if not section.unit(section.monitor).is_share:
        return ""
    spent = seconds_per_percent(trial, with_features)
    return "" if spent is None else f" ({seconds(spent)} s per 1 %{' with them' if with_features else ''})"


def to_grid(table: Table, width: int) -> Grid:
    """The table with the essential columns, and as many of the others as fit, in their order."""
    rows = [[cell.text for cell in row] for row in (*table.rows, *table.baselines)]
    widths = [max(len(text) for text in column) for column in zip(table.columns, *rows, strict=True)]
    essential = [i for i, name in enumerate(table.columns) if name in table.essential] or list(range(len(widths)))
    shown, used = set(essential), sum(widths[i] + GAP for i in essential)
    for i, one in enumerate(widths):
        if i not in shown and used + one + GAP <= width:
            shown.add(i)
            used += one + GAP
    grid = Grid(box=None, header_style="bold", padding=(0, GAP, 0, 0), pad_edge=False)
    figures = next((i for i, name in enumerate(table.columns) if "/" in name or name == "seeds"), len(widths))
    for i in sorted(shown):
        right = table.numeric[i] or i >= figures
        grid.add_column(
            Text(clean(table.columns[i])), justify="right" if right else "left", overflow="fold", no_wrap=i >= figures
        )
    for row in rows:
        grid.add_row(*(Text(clean(row[i])) for i in sorted(shown)))
    return grid
