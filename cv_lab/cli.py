"""The command ``cv-lab``. Imports what a subcommand needs only when it is called, so that help comes at once."""

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from cv_lab import __version__

# Name of each subcommand: the module whose `main` takes its arguments, and what it does.
COMMANDS = {
    "train": ("cv_lab.train", "run one trial, or with -m a study of many"),
    "report": ("cv_lab.report.__main__", "write the report of a study"),
    "data": ("cv_lab.trial.look", "show what a folder of your own holds, without training"),
    "predict": ("cv_lab.trial.predict", "apply a trained checkpoint to images"),
    "evaluate": ("cv_lab.trial.evaluate", "measure trained checkpoints on an annotated data set"),
    "export": ("cv_lab.trial.export", "write a trained checkpoint as one file for torch or ONNX"),
    "download": ("cv_lab.data.download", "fetch data sets before they are needed"),
}
USAGE = "usage: cv-lab COMMAND [ARGUMENTS]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand with its arguments.

    Args:
        arguments: name of the subcommand and its own arguments; None takes those of the process.

    Raises:
        SystemExit: with code 2 if there is no such subcommand, else as the subcommand ends.
    """
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in ("-h", "--help"):
        print(_help())
    elif command == "--version":
        print(f"cv-lab {__version__}")
    elif command in COMMANDS:
        module, _ = COMMANDS[command]
        sys.path.append(os.getcwd())  # where modules of the user's own lie, which a config or a checkpoint names
        if command != "train":  # which Lightning may start again by the same sys.argv, for each device
            sys.argv = [f"cv-lab {command}", *rest]  # argparse names the command after it
        import_module(module).main(rest)
    else:
        print(f"{USAGE}\ncv-lab: error: {_unknown(command)}", file=sys.stderr)
        sys.exit(2)


def _help() -> str:
    lines = [f"  {name:<10}{what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            USAGE,
            "",
            "Hyper-parameter studies over image tasks.",
            "",
            "commands:",
            *lines,
            "",
            "cv-lab COMMAND --help explains the arguments of a command.",
        ]
    )


def _unknown(command: str) -> str:
    if "=" in command or command.startswith("-"):  # an override or a flag of Hydra's
        return f"{command} is not a command: did you mean cv-lab train {command}?"
    close = difflib.get_close_matches(command, COMMANDS, n=1)
    return f"there is no command {command!r}: " + (
        f"did you mean {close[0]}?" if close else f"give one of {', '.join(COMMANDS)}"
    )
