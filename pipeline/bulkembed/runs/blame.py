"""A fault of a store before any work of a run -> the same fault with the side that it is of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bulkembed.errors import BulkembedError, ConfigError, StorageError, StoreSetupError

WRONG_PLACE = (FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError)


@contextmanager
def blaming_source() -> Iterator[None]:
    with blaming("source"):
        yield


@contextmanager
def blaming_output(output: str) -> Iterator[None]:
    with blaming(f"output: cannot read {output}"):
        yield


@contextmanager
def blaming_writes(output: str) -> Iterator[None]:
    with blaming(f"output: cannot write to {output}"):
        yield


@contextmanager
def blaming(side: str) -> Iterator[None]:
    try:
        yield
    except (StorageError, FileNotFoundError) as error:
        raise blamed(side, error) from error


def blamed(side: str, error: StorageError | FileNotFoundError) -> BulkembedError:
    """A ConfigError where the place itself is wrong, such as a file in place of a folder. Else the fault stays what it is."""
    cause = error.__cause__ if isinstance(error, StorageError) else error
    if isinstance(cause, WRONG_PLACE):
        return ConfigError(f"{side}: {error}")
    return (StoreSetupError if isinstance(error, StoreSetupError) else StorageError)(f"{side}: {error}")
