"""Everything this project raises on purpose.

    BulkembedError            one clear line: what, where, what to do
      ConfigError             a field of the configuration is wrong            exit 2
      SourceError             the source is missing, empty or unreadable       exit 2
        ObjectError           one source object is unreadable: the others go on, exit 1
      ModelError              the model's files are missing or contradict      exit 2
        GateError             a loaded model fails a check of its vectors      exit 2
      HubError                the hub did not answer                           exit 1
      ResourceError           the cluster can never give what was asked for    exit 2
      ClusterError            Ray cannot be joined or started                  exit 2
      StorageError            the store refused, or retries ran out            exit 1
        StoreSetupError       credentials are missing, or an option is wrong   exit 2
      EmbeddingError          the engine returned no usable vector             exit 1
        EngineError           the engine failed; its process is not used again exit 1
      HeldBack                a snapshot would drop too much of the newest     exit 3
      AlreadyRunning          another run writes to this line                  exit 0 or 1
      LeaseLost               a paused run was taken over by another one       exit 1
      IncompleteError         shards failed; running again resumes             exit 1
      OutputError             what is printed cannot be written                exit 1
      HostError               the host has no more memory, threads, files      exit 1
    InterruptedRun            a signal ended the command; running again resumes; it is no Exception, so that no
                              handler takes it for a fault of the work         exit 128 + signal

No caller retries after one of these. `storage.retry` retries transient faults of a store, and `cluster.dispatch` gives
the shard of a lost process or engine to another actor.
"""

from __future__ import annotations

import errno
from typing import Any, Literal

NO_ROOM_FOR_LIBRARY = ("failed to map segment", "annot allocate memory")  # the words of the loader of libraries
NO_TEMPORARY_FOLDER = "No usable temporary directory"  # the words of Python's tempfile


def in_one_line(message: str) -> str:
    """The message with line breaks and terminal sequences escaped: names in it come from users, files and listings."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in message)


class BulkembedError(Exception):
    """Base class; `exit_code` is what the command line exits with."""

    exit_code = 1


class ConfigError(BulkembedError):
    exit_code = 2


class SourceError(BulkembedError):
    exit_code = 2


class ObjectError(SourceError):
    exit_code = 1


class ModelError(BulkembedError):
    exit_code = 2


class GateError(ModelError):
    pass


class HubError(BulkembedError):
    pass


class ResourceError(BulkembedError):
    exit_code = 2


class ClusterError(BulkembedError):
    exit_code = 2


class StorageError(BulkembedError):
    pass


class StoreSetupError(StorageError):
    exit_code = 2


class EmbeddingError(BulkembedError):
    pass


class EngineError(EmbeddingError):
    """`cause`: see records.Cause."""

    def __init__(self, reason: str, cause: Literal["engine", "memory", "bystander"] = "engine") -> None:
        # The default is for pickle, which calls this with the reason alone and sets the cause afterwards.
        super().__init__(reason)
        self.cause = cause


class HeldBack(BulkembedError):
    exit_code = 3


class AlreadyRunning(BulkembedError):
    """`exit_code`: 0 where the run was told to skip, 1 where it was told to fail."""

    def __init__(self, reason: str, exit_code: int = 1) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


class LeaseLost(BulkembedError):
    pass


class IncompleteError(BulkembedError):
    """`summary`: what the run did (runs.run.Summary), or None where it ended itself before it had one."""

    def __init__(self, reason: str, summary: Any = None) -> None:
        super().__init__(reason)
        self.summary = summary


class OutputError(BulkembedError):
    pass


class HostError(BulkembedError):
    pass


def host_error(error: BaseException) -> HostError | None:
    """The error of one line for what a host lacks or refuses; None for every other error, which is a fault of the code."""
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and any(words in str(error) for words in NO_ROOM_FOR_LIBRARY)):
        return HostError("this host gives no more memory: give it more, or do less at once")
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return HostError("this host allows no more threads: raise `ulimit -u`, or the limit of processes of the container")
    return os_error(error) if isinstance(error, OSError) else None


def os_error(error: OSError) -> HostError | None:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return HostError("this host allows no more open files: raise `ulimit -n`")
    if (error.strerror or "").startswith(NO_TEMPORARY_FOLDER):
        return HostError(f"{error.strerror}; set TMPDIR to a folder that can be written and has room")
    if isinstance(error, FileNotFoundError) and not error.strerror:  # as the clients of stores raise it
        return HostError(f"{error}: is not there any more; run the command again, which looks anew")
    return HostError(": ".join(str(part) for part in (error.filename, error.strerror) if part)) if error.strerror else None


class InterruptedRun(BaseException):  # as KeyboardInterrupt
    def __init__(self, signal_number: int) -> None:
        super().__init__("interrupted: what is published stays; run the same command again to resume")
        self.exit_code = 128 + signal_number
