"""Work on a store -> its result, after retries. This is the only retry policy."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

import tenacity

from bulkembed.errors import BulkembedError, StorageError, StoreSetupError
from bulkembed.storage.faults import (
    LACKING_NAMES,
    UNKNOWN_CERTIFICATE,
    class_names,
    describe_error,
    fault_behind,
    is_mistake,
    is_of_store,
    is_refusal,
    is_transient,
    s3_code,
)

T = TypeVar("T")
log = logging.getLogger(__name__)

ATTEMPTS = 8  # with these waits: about a minute
ARCHIVED = "InvalidObjectState"  # what S3 says of an object in Glacier
FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS = 0.5, 20.0  # bounds of the random wait before the second attempt, and before any

_retries, _retries_lock = [0], threading.Lock()


def retries_taken() -> int:
    """How many requests this process has retried since the last call of this function."""
    with _retries_lock:
        taken, _retries[0] = _retries[0], 0
    return taken


def retry(work: Callable[[], T], what: str) -> T:
    """The result of `work`, repeated after a transient fault of the store.

    FileNotFoundError and faults of the data pass through. Every other fault of the store becomes StorageError; StoreSetupError where the
    credentials are missing or an option is wrong."""

    def attempt() -> T:
        try:
            return work()
        except FileNotFoundError as error:
            if (fault := fault_behind(error)) is error:
                raise
            raise fault from error

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        with _retries_lock:
            _retries[0] += 1
        log.info("%s: %s; trying again (%d of %d)", what, describe_error(error), state.attempt_number + 1, ATTEMPTS)

    policy = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_transient),
        wait=tenacity.wait_random_exponential(multiplier=FIRST_WAIT_SECONDS, max=MAX_WAIT_SECONDS),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        before_sleep=before_sleep,
        reraise=True,
    )
    try:
        return policy(attempt)
    except (FileNotFoundError, BulkembedError):
        raise
    except Exception as error:
        if is_of_store(error):
            kind = StoreSetupError if is_mistake(error) else StorageError
            raise kind(f"{what}: {describe_error(error)}{remedy(error)}") from error
        raise


def remedy(error: Exception) -> str:
    """What to do about a request that a store or its client refuses."""
    if s3_code(error) == ARCHIVED:
        return "; the object is in an archive: restore it, or leave it out (exclude)"
    if class_names(error) & LACKING_NAMES:
        return "; give credentials in the environment or in [storage]"
    if UNKNOWN_CERTIFICATE in str(error):
        return "; name the certificate of its authority in SSL_CERT_FILE, for S3 in AWS_CA_BUNDLE"
    if is_mistake(error):
        return "; see [storage] and the place's address"
    if isinstance(error, PermissionError) and error.filename is not None:  # of a local file
        return "; give this user the right to it"
    return "; check or renew the credentials" if is_refusal(error) else ""
