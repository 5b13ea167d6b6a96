"""What trials of a multirun are refused for before the first of them runs."""

from collections.abc import Mapping, Sequence
from typing import Any


def unfit_arguments(context: Any, configs: Mapping[int, dict[str, Any]]) -> dict[int, str]:
    """What is wrong with the components of trials, see :func:`cv_lab.arguments.check_arguments`.

    The check imports torch, so a process of the trials' fork server does it, which has imported torch already.

    Args:
        context: of multiprocessing.
        configs: composed configs as plain values, by the trial's number.

    Returns:
        Messages by the numbers of the trials that have something wrong.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_check, args=(sender, dict(configs)))
    process.start()
    sender.close()
    try:
        problems: dict[int, str] = receiver.recv()
    except EOFError:  # it was killed; each trial checks its config again
        problems = {}
    process.join()
    return problems


def in_words(problems: Mapping[int, str], trials: int) -> str:
    """One line for each message, with the numbers of the trials, of `trials` in all, that it is about."""
    numbers: dict[str, list[int]] = {}
    for number, message in problems.items():
        for line in message.splitlines():
            numbers.setdefault(line, []).append(number)
    return "\n".join(f"{_which(some, trials)}: {line}" for line, some in numbers.items())


def _which(numbers: Sequence[int], trials: int) -> str:
    if len(numbers) == trials:
        return "the trial" if trials == 1 else f"all {trials} trials"
    return ", ".join(f"#{number}" for number in numbers)


def _check(sender: Any, configs: Mapping[int, dict[str, Any]]) -> None:
    from cv_lab.arguments import check_arguments  # here, since Hydra imports the launcher for --help as well

    problems = {}
    for number, config in configs.items():
        try:
            check_arguments(config)
        except ValueError as error:
            problems[number] = str(error)
    sender.send(problems)
