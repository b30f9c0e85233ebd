"""Work on a store -> its result, after retries: which faults are retried, and the only retry policy."""

from __future__ import annotations

import errno
import logging
import threading
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import pyarrow as pa
import tenacity

from bulkembed.errors import StorageError
from bulkembed.storage.compression import DAMAGED

T = TypeVar("T")
log = logging.getLogger(__name__)

ATTEMPTS = 8  # with these waits: about a minute
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.5, 20.0  # bounds of the random wait before the second attempt, and before any
# These errors are about the request, not about the state of the store. The same request would fail again.
FINAL_ERRORS = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
FINAL_ERROR_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.EFBIG, errno.ENOSYS}
DAMAGED_REQUEST_CODES = {"IncompleteBody", "BadDigest"}  # the request was damaged on its way; other invalid requests stay invalid
# What libraries raise for bytes that are not of the format that the name says.
CORRUPT = (pa.ArrowException, OSError, EOFError, zlib.error, *DAMAGED)
FINAL_NAMES = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "InvalidEndpoint"}


def _transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, FINAL_ERRORS) or type(error).__name__ in FINAL_NAMES:
        return False
    if isinstance(error, _client_errors()):  # tested before OSError, since some errors are both
        return True
    if isinstance(error, OSError):
        # A library that finds corrupt data raises an OSError without a number (pyarrow does).
        lost = isinstance(error, TimeoutError | ConnectionError)
        final = error.errno in FINAL_ERROR_NUMBERS or (error.errno == errno.EINVAL and _code(error) not in DAMAGED_REQUEST_CODES)
        return lost or (error.errno is not None and not final)
    # s3fs 2026.2 raises IndexError for a time-out without a message: S3File._fetch_range reads the first argument of the error.
    return isinstance(error, IndexError) and error.__context__ is not None and _transient(error.__context__)


def _code(error: BaseException) -> str:
    """The code of an S3 server's error, which s3fs has translated. It is "400" for a HEAD request, whose answer has no body."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


@lru_cache(maxsize=1)
def _client_errors() -> tuple[type[Exception], ...]:
    """The errors of the S3 client for faults of the network or the server. The import takes half a second, and is done late."""
    import aiohttp
    import botocore.exceptions

    return (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, aiohttp.ClientError)


_retries, _retries_lock = [0], threading.Lock()


def retries_taken() -> int:
    """How many requests this process has retried since the last call of this function."""
    with _retries_lock:
        taken, _retries[0] = _retries[0], 0
    return taken


def retry(work: Callable[[], T], what: str) -> T:
    """The result of `work`, repeated after a transient fault of the store.

    FileNotFoundError and faults of the data pass through. Every other fault of the store becomes StorageError."""

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        with _retries_lock:
            _retries[0] += 1
        log.info("%s: %s; trying again (%d of %d)", what, describe_error(error), state.attempt_number + 1, ATTEMPTS)

    policy = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_transient),
        wait=tenacity.wait_random_exponential(multiplier=FIRST_WAIT_SECONDS, max=MAX_WAIT_SECONDS),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        before_sleep=before_sleep,
        reraise=True,
    )
    try:
        return policy(work)
    except FileNotFoundError:
        raise
    except Exception as error:
        numbered = isinstance(error, OSError) and error.errno is not None
        if numbered or _transient(error) or isinstance(error, FINAL_ERRORS) or type(error).__name__ in FINAL_NAMES:
            refused = isinstance(error, PermissionError) or _code(error) == "400"
            hint = "; check or renew the credentials" if refused else ""
            raise StorageError(f"{what}: {describe_error(error)}{hint}") from error
        raise


def describe_error(error: BaseException | None) -> str:
    """One line of an exception."""
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")
