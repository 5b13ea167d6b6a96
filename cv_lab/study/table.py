"""The trials of a study as a table on the terminal."""

from collections.abc import Sequence
from statistics import fmean, stdev

from cv_lab.study.trials import (
    Trial,
    loss_columns,
    metric_name,
    number,
    rank_settings,
    seconds_per_percent,
    varying_parameters,
)

VALIDATED_ON_TEST = "Validated on the test set, which therefore picked the checkpoint too: no unbiased estimate."


def print_trial(trial: Trial) -> None:
    """Print the outcome of a single run on the terminal."""
    assert trial.result is not None
    result, shown = trial.result, figures([trial], [])
    name = metric_name(trial)
    per_percent = _per_percent(shown, "s per 1 %")
    print(
        f"best epoch {shown['epoch']} of {result['last']['epoch']}: val/{name} {shown[f'val/{name}']}, "
        f"test/{name} {shown[f'test/{name}']}, in {shown['seconds']} s{per_percent}"
    )
    for what in trial.shared_seconds:
        with_it = _per_percent(shown, f"s per 1 % with {what}")
        print(f"{what} took {shown[f'{what} s']} s, once for all trials{with_it}")
    if result["monitor"]["validation"] != "split":
        print(VALIDATED_ON_TEST)


def print_table(trials: Sequence[Trial]) -> None:
    """Print the trials of a study on the terminal, best first, and then why others did not complete.

    Trials that differ in their seed alone share a row, with mean and sample standard deviation.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=1000)  # in a file or a pipe nothing need be folded
    if any(trial.result is not None for trial in trials):
        names, rows = _rows(trials)
        table = Table(box=None, header_style="bold")
        columns = dict.fromkeys(name for row in rows for name in row)
        # Users choose names and values, which may look like rich's markup.
        for name in columns:
            if name in names:
                table.add_column(Text(name), overflow="fold")
            else:
                table.add_column(Text(name), justify="right")
        for row in rows:
            table.add_row(*(Text(row.get(name, "")) for name in columns))
        console.print(table)
        if any(trial.result["monitor"].get("validation") != "split" for trial in trials if trial.result):
            print(VALIDATED_ON_TEST)
    for trial in trials:
        if trial.status != "completed":
            print(f"{_STATUSES.get(trial.status, trial.status)}: {trial.folder}{_reason(trial)}")


def figures(trials: Sequence[Trial], losses: Sequence[str]) -> dict[str, str]:
    """The figures of completed trials at their best epochs, by column, as text; of several, mean ± deviation.

    Args:
        trials: that share a row.
        losses: see :func:`~cv_lab.study.trials.loss_columns`.
    """
    each = [_numbers(trial, losses) for trial in trials]
    return {
        key: _text(key, trials[0].unit(key), [numbers[key] for numbers in each])
        for key in each[0]
        if all(key in numbers for numbers in each)
    }


_STATUSES = {"running": "running in another process"}
_DECIMALS = {"epoch": ".3g", "seconds": ".1f"}


def _rows(trials: Sequence[Trial]) -> tuple[list[str], list[dict[str, str]]]:
    """The varying parameters, and the cells of each row by column."""
    groups = rank_settings([trial for trial in trials if trial.result is not None])
    several = any(len(group) > 1 for group in groups)
    names = [name for name in varying_parameters(trials) if not (several and name == "seed")]
    losses = loss_columns(trials)
    rows = []
    for group in groups:
        row = {name: str(group[0].parameters.get(name, "")) for name in names}
        rows.append(row | ({"seeds": str(len(group))} if several else {}) | figures(group, losses))
    return names, rows


def _reason(trial: Trial) -> str:
    error = trial.record.get("error")
    if trial.status != "failed" or not isinstance(error, dict):
        return ""
    again = " (retry_failed=true runs it again)" if error.get("repeats") else ""
    return f": {error.get('message')}{again}"


def _per_percent(shown: dict[str, str], column: str) -> str:
    return f" ({shown[column]} {column})" if shown.get(column) else ""


def _numbers(trial: Trial, losses: Sequence[str]) -> dict[str, float | None]:
    assert trial.result is not None
    name, metrics, seconds = metric_name(trial), trial.result["metrics"], trial.result["seconds"]
    keys = (*losses, f"train/{name}", f"val/{name}", f"test/{name}")
    numbers: dict[str, float | None] = {key: value for key in keys if (value := number(metrics.get(key))) is not None}
    numbers |= {
        "epoch": number(trial.result["monitor"].get("epoch")),
        "seconds": seconds["fit"],
        "s per 1 %": seconds_per_percent(trial),
    }
    for what, spent in trial.shared_seconds.items():
        numbers |= {f"{what} s": spent, f"s per 1 % with {what}": seconds_per_percent(trial, with_shared=True)}
    return numbers


def _text(key: str, unit: str, values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    share = unit == "share"
    digits = ".1f" if key.endswith(" s") else _DECIMALS.get(key, ".2f")
    if "/" in key and not share:
        digits = ".4g"
    factor = 100 if share else 1
    suffix = {"share": " %", "plain": ""}.get(unit, f" {unit}")
    text = f"{factor * fmean(known):{digits}}"
    return text + (f" ± {factor * stdev(known):{digits}}" if len(known) > 1 else "") + suffix
