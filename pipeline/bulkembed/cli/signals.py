"""SIGTERM and SIGINT -> the wish to stop, which ordinary code looks at. A second one ends the process wherever it is.

Both are blocked in every thread but for one that waits for them, so no handler ever runs: nothing is raised in the midst of a
call, and nothing is printed while somebody holds a logger's lock. Ray sets two handlers in `ray.init`, one in Python and one in
C++ that prints a stack. They never run either.

The thread needs the interpreter's lock for a moment: a call into C that keeps the lock, as Ray's registration does, is waited for.

Only the command line calls `catch`. A program that has this package as a library keeps its handlers, and nothing is ever wished.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from bulkembed import stopping
from bulkembed.errors import InterruptedRun

SIGNALS = {signal.SIGINT, signal.SIGTERM}
# From the end of the grace to the end of the process. Kubernetes kills after 30 s, of which a run has 25 by default.
TIDY_SECONDS = 4.0
POLL_SECONDS = 0.5
SHOW_CURSOR = "\x1b[?25h"  # a live line of the terminal hides it


def catch() -> None:
    """Catches both signals from here on. To be called before there are other threads: those would take a signal the old way."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    os.register_at_fork(after_in_child=release)
    try:
        stderr = os.dup(2)  # the command line may point 2 elsewhere while a model loads
    except OSError:  # it is closed
        stderr = os.open(os.devnull, os.O_WRONLY)
    threading.Thread(target=watch, args=(stderr,), name="signals", daemon=True).start()


def release() -> None:
    """Gives a child the usual signals, and a process group of its own. Ray's processes are ended by SIGTERM, and a signal to the group of
    this process, as `timeout` and a terminal send it, must not end them under shards that may still be published."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    os.setpgrp()


def watch(stderr: int) -> NoReturn:
    """Notes the first signal. Ends the process at the second, or where the first one's time is up and nobody has noticed it."""
    stopping.stop.request(signal.sigwait(SIGNALS))
    while (left := stopping.stop.deadline + TIDY_SECONDS - time.monotonic()) > 0:
        second = signal.sigtimedwait(SIGNALS, min(left, POLL_SECONDS))
        if second is not None:
            end(second.si_signo)
    say_interrupted(stderr)
    end(stopping.stop.signal)


def say_interrupted(stderr: int) -> None:
    """Says it for the main thread, which may hold any lock: by the system call alone, and only where that cannot block."""
    if not stopping.stop.last_word.acquire(blocking=False) or not select.select([], [stderr], [], 0)[1]:
        return
    before = f"{SHOW_CURSOR}\n" if os.isatty(stderr) else ""
    with suppress(OSError):  # nobody reads it any more
        os.write(stderr, f"{before}bulkembed: {InterruptedRun(stopping.stop.signal)}\n".encode())


def end(number: int) -> NoReturn:
    """Ends this process at once, and all that it has started: Ray's agents and an engine's process would outlive it for a while."""
    for process in descendants(os.getpid()):
        with suppress(OSError):  # it has ended by itself
            os.kill(process, signal.SIGKILL)
    os._exit(128 + number)


def descendants(process: int) -> list[int]:
    """Ids of the processes below one; none where the kernel does not list them."""
    found: list[int] = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # of a thread that has ended
            for child in map(int, children.read_text(encoding="ascii").split()):
                found += [child, *descendants(child)]
    return found
