"""Make Linux look like a system without POSIX; Python imports this at its start when the folder is on PYTHONPATH."""

import builtins
import multiprocessing
import signal
from typing import Any

import_as_here = builtins.__import__


def import_as_elsewhere(name: str, namespace: Any = None, *arguments: Any, **options: Any) -> Any:
    """Refuse the modules that are not there; psutil, which has other code for other systems, may have them."""
    if name in ("fcntl", "resource") and not str((namespace or {}).get("__name__")).startswith("psutil"):
        raise ImportError(f"no {name} elsewhere")
    return import_as_here(name, namespace, *arguments, **options)


builtins.__import__ = import_as_elsewhere
for name in ("SIGUSR2", "SIGHUP"):  # Lightning uses SIGUSR1 wherever the platform is not called Windows
    delattr(signal, name)
multiprocessing.get_all_start_methods = lambda: ["spawn"]  # type: ignore[assignment]
