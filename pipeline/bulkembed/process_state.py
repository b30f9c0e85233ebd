"""What a run changes in the process of its caller, and puts back afterwards."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LIBC = ctypes.CDLL(None)
SIGACTION_BYTES = 1024  # more than a `struct sigaction` has on any platform


@contextmanager
def same_environment(is_changed: Callable[[str], bool]) -> Iterator[None]:
    """Restores the environment variables whose names `is_changed` accepts. Other threads may change the others meanwhile."""
    before = {name: value for name, value in os.environ.items() if is_changed(name)}
    try:
        yield
    finally:
        for name in [name for name in os.environ if is_changed(name) and name not in before]:
            del os.environ[name]
        os.environ.update(before)


class SignalHandlers:
    """The handlers of all signals, as they are now. Python does not see those that a library sets in C, so libc is asked for them."""

    def __init__(self) -> None:
        self.has_faulthandler = faulthandler.is_enabled()
        self.actions = {
            number: ctypes.create_string_buffer(SIGACTION_BYTES) for number in signal.valid_signals() if number < signal.SIGRTMIN
        }
        for number, action in self.actions.items():
            LIBC.sigaction(number, None, action)

    def restore(self) -> None:
        """May be called from any thread, unlike `signal.signal`."""
        if not self.has_faulthandler:
            faulthandler.disable()
        for number, action in self.actions.items():
            LIBC.sigaction(number, action, None)


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Suppresses warnings and INFO lines of what is imported within. In a notebook, Ray and tqdm ask for ipywidgets."""
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def same_hooks() -> Iterator[None]:
    """Restores the hook for uncaught exceptions, and the limit of open files."""
    hook, limits = sys.excepthook, resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        yield
    finally:
        sys.excepthook = hook
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@contextmanager
def some_standard_error() -> Iterator[None]:
    """Gives Ray a standard error where the process has closed its own, as daemons do: Ray does not start without one."""
    if sys.stderr is not None:
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as null:
        sys.stderr = null
        try:
            yield
        finally:
            sys.stderr = None
