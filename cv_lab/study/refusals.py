"""Find reasons to refuse trials of a multirun before any of them runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.utils import get_method


def refusals(context: Any, check: str, configs: Mapping[int, dict[str, Any]]) -> dict[int, str]:
    """The messages of those configs for which the function `check` raises a ValueError; arguments as of `ask_each`."""
    answers = ask_each(context, check, configs)
    return {number: str(answer) for number, answer in answers.items() if isinstance(answer, ValueError)}


def ask_each(context: Any, function: str, configs: Mapping[int, dict[str, Any]]) -> dict[int, Any]:
    """Call a function with each of several configs, in one process; see :func:`ask`.

    Args:
        context: of multiprocessing.
        function: its dotted name.
        configs: composed configs as plain values, by the numbers of their trials.

    Returns:
        What it returns or the ValueError that it raises, by the same numbers; nothing if the process was killed, since
        each trial makes the same check again.
    """
    return ask(context, f"{__name__}.answers_of", function, dict(configs)) or {}


def ask(context: Any, function: str, *arguments: Any) -> Any:
    """Call a function, given by its dotted name, in a process that has imported what trials need.

    Returns:
        The function's answer, which is pickled, as the arguments are; None if the process was killed.
    """
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        answer = None
    process.join()
    return answer


def _answer(sender: Any, function: str, arguments: Sequence[Any]) -> None:
    sender.send(get_method(function)(*arguments))


def answers_of(function: str, configs: Mapping[int, dict[str, Any]]) -> dict[int, Any]:
    """Answer :func:`ask_each` within that process."""
    answers: dict[int, Any] = {}
    for number, config in configs.items():
        try:
            answers[number] = get_method(function)(config)
        except ValueError as error:
            answers[number] = ValueError(str(error))  # subclasses of a trial's own may not be picklable
    return answers


def in_words(problems: Mapping[int, str], trials: int) -> str:
    """Write a line for each message, with the numbers of its trials, or "all" if these are all `trials`."""
    numbers: dict[str, list[int]] = {}
    for number, message in problems.items():
        for line in message.splitlines():
            numbers.setdefault(line, []).append(number)
    return "\n".join(f"{_which(some, trials)}: {line}" for line, some in numbers.items())


def _which(numbers: Sequence[int], trials: int) -> str:
    if len(numbers) == trials:
        return "the trial" if trials == 1 else f"all {trials} trials"
    return ", ".join(f"#{number}" for number in numbers)
