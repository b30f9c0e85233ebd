"""The first SIGTERM, SIGINT or SIGHUP requests a stop (see `stopping`). A second one ends the process at once.

A terminal that is closed sends SIGHUP. `nohup` makes the process ignore it, and so it stays ignored.

The signals are blocked in every thread. One thread waits for them, so no handler ever runs. So nothing is raised in the middle of
a call, and nothing is printed while a thread holds a logger's lock. The handlers that Ray's C++ code installs never run either.

The waiting thread needs the interpreter's lock for a moment. It waits for C code that holds the lock, as Ray's registration does.

Only the command line calls `catch`. A program that uses this package as a library keeps its handlers, and no stop is requested.
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

SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
# From the end of the grace to the end of the process. Kubernetes kills after 30 s, of which a run has 25 by default.
TIDY_SECONDS = 4.0
POLL_SECONDS = 0.5
SHOW_CURSOR = "\x1b[?25h"  # a live line of the terminal hides it


def catch() -> None:
    """Catches the signals from now on. Call it before other threads start: those would not block the signals."""
    caught = SIGNALS - {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else SIGNALS
    signal.pthread_sigmask(signal.SIG_BLOCK, caught)
    os.register_at_fork(after_in_child=release)
    threading.Thread(target=watch, args=(caught, copy_of(1), copy_of(2)), name="signals", daemon=True).start()


def copy_of(stream: int) -> int:
    """A descriptor that stays where it is while a model loads, which may redirect the stream."""
    try:
        return os.dup(stream)
    except OSError:  # it is closed
        return os.open(os.devnull, os.O_WRONLY)


def release() -> None:
    """Unblocks the signals in a child, and gives it its own process group. `timeout` and a terminal signal the whole group of this
    process. That must not end Ray's processes while shards may still be published."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    os.setpgrp()


def watch(caught: set[signal.Signals], stdout: int, stderr: int) -> NoReturn:
    """Requests a stop at the first signal. Ends the process at the second signal, or when the time after the first one is up."""
    stopping.stop.request(signal.sigwait(caught))
    while (left := stopping.stop.deadline + TIDY_SECONDS - time.monotonic()) > 0:
        second = signal.sigtimedwait(caught, min(left, POLL_SECONDS))
        if second is not None:
            say_last_line(stdout, second.si_signo)
            end(second.si_signo)
    say_interrupted(stderr)
    say_last_line(stdout, stopping.stop.signal)
    end(stopping.stop.signal)


def say_last_line(stdout: int, number: int) -> None:
    """Writes what the command owes to standard output, only if that cannot block."""
    if stopping.stop.last_line is None or not select.select([], [stdout], [], 0)[1]:
        return
    with suppress(OSError):  # the reader is gone
        os.write(stdout, stopping.stop.last_line(number))


def say_interrupted(stderr: int) -> None:
    """Prints the message of the main thread, which may hold any lock. It uses the system call alone, and only if that cannot block."""
    if not stopping.stop.last_word.acquire(blocking=False) or not select.select([], [stderr], [], 0)[1]:
        return
    before = f"{SHOW_CURSOR}\n" if os.isatty(stderr) else ""
    with suppress(OSError):  # the reader is gone
        os.write(stderr, f"{before}bulkembed: {InterruptedRun(stopping.stop.signal)}\n".encode())


def end(number: int) -> NoReturn:
    """Ends this process and all its descendants at once. Ray's agents and an engine's process would otherwise live on for a while."""
    for process in descendants(os.getpid()):
        with suppress(OSError):  # it has ended already
            os.kill(process, signal.SIGKILL)
    os._exit(128 + number)


def descendants(process: int) -> list[int]:
    """Ids of all processes below this one. The list is empty where the kernel does not list children."""
    ids: list[int] = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            for child in map(int, children.read_text(encoding="ascii").split()):
                ids += [child, *descendants(child)]
    return ids
