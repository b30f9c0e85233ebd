"""Jobs of a cluster, by the HTTP API of its head: looked up, submitted once, stopped. A request whose connection breaks is made again.

A piece of work has a name. Its first job has the name as its id, and further attempts are `NAME.2`, `NAME.3`: Ray takes no id twice.
"""

from __future__ import annotations

import re
import time
from typing import Any

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from bulkembed.errors import BulkembedError, ClusterError, ConfigError

ANSWER_SECONDS = 20  # the head may take for an answer
STOP_SECONDS = 1.0  # between two askings
MAX_TRIES = 10  # of one request whose connection breaks
DIGEST_KEY = "command_digest"  # of a job's metadata
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # it is part of a URL, and of the name of the log file on the head
LOCKED_OUT = (
    "wants a token, and not the one that is set here, if any: "
    "set RAY_AUTH_MODE=token, and the head's token in RAY_AUTH_TOKEN or its file in RAY_AUTH_TOKEN_PATH"
)
JOBS_API = "a head has a Jobs API if its Ray was installed as ray[default]"


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def connect_client(address: str) -> Any:
    """A client of the head at `address`. Raises ClusterError where none answers, or it wants another token."""
    import requests
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):  # type: ignore[misc]
        def _do_request(self, method: str, endpoint: str, **given: Any) -> Any:
            """Adds a timeout and further tries. Ray's own client waits for ever, and gives up when a connection breaks.

            Each request may be made twice: a second job of the same id is refused, and a job can be stopped again."""

            def ask() -> Any:
                answer = super(Client, self)._do_request(method, endpoint, **({"timeout": ANSWER_SECONDS} | given))
                if answer.status_code == 200 and not endpoint.startswith("/api/packages"):
                    answer.json()  # a connection that breaks between two headers looks like an answer without a body
                return answer

            return retrying()(ask)

    try:
        return Client(address)
    except AuthenticationError:
        raise ClusterError(f"{address} {LOCKED_OUT}") from None
    except (ConnectionError, requests.exceptions.ConnectionError):
        raise ClusterError(f"no head answers at {address}; {JOBS_API}") from None
    except requests.exceptions.Timeout:
        raise ClusterError(f"no head answers at {address} within {ANSWER_SECONDS} s") from None
    except (RuntimeError, ValueError, KeyError, requests.exceptions.RequestException) as error:
        raise ClusterError(f"what answers at {address} has no Jobs API ({first_line(error)}); {JOBS_API}") from error


def retrying() -> Retrying:
    return Retrying(
        retry=retry_if_exception(is_broken), stop=stop_after_attempt(MAX_TRIES), wait=wait_random_exponential(0.1, 2), reraise=True
    )


def is_broken(error: BaseException) -> bool:
    """Whether a connection that was there has broken. One that nobody takes, and an answer that never comes, are no such."""
    from requests import exceptions
    from urllib3.exceptions import MaxRetryError

    if isinstance(error, exceptions.Timeout) or (error.args and isinstance(error.args[0], MaxRetryError)):
        return False
    return isinstance(error, exceptions.ConnectionError | exceptions.ChunkedEncodingError | exceptions.JSONDecodeError)


def attempt_of(name: str, job_id: str | None) -> int:
    """Which attempt of `name` a job is; 0 where it is none."""
    first, dot, number = (job_id or "").partition(".")
    if first != name:
        return 0
    return int(number) if dot and number.isdecimal() else 0 if dot else 1


def attempt_id(name: str, attempt: int) -> str:
    return name if attempt == 1 else f"{name}.{attempt}"


def newest_attempt(client: Any, name: str) -> Any | None:
    """The newest job of the work `name`, or None. Raises ClusterError where the head does not answer."""
    attempts = [job for job in answered(client, client.list_jobs) if attempt_of(name, job.submission_id)]
    return max(attempts, key=lambda job: attempt_of(name, job.submission_id), default=None)


def require_job(client: Any, job_id: str) -> Any:
    """The job of this id; of the name of a work it is the newest attempt. Raises ConfigError where there is none."""
    same = [job for job in answered(client, client.list_jobs) if job.submission_id == job_id]
    job = newest_attempt(client, job_id) or next(iter(same), None)
    if job is None:
        raise ConfigError(f"{job_id}: the head at {client.get_address()} knows no such job; a head that starts again forgets its jobs")
    return job


def answered(client: Any, ask: Any, *arguments: object) -> Any:
    """What the head answers. Raises ClusterError where it does not, or where it refuses the token."""
    from ray.exceptions import AuthenticationError

    try:
        return ask(*arguments)
    except AuthenticationError:
        raise ClusterError(f"{client.get_address()} {LOCKED_OUT}") from None
    except (OSError, RuntimeError) as error:
        raise ClusterError(f"the head at {client.get_address()} does not answer: {first_line(error)}") from error


def submit_job(client: Any, job_id: str, job: dict[str, Any]) -> None:
    """Submits the job, unless the head has one of this id: an earlier try of this call, or somebody else who submits the same.

    Raises ClusterError where the token is refused, BulkembedError where the head does not take the job, ConfigError as `require_same`."""
    from ray.exceptions import AuthenticationError

    try:
        client.submit_job(submission_id=job_id, **job)
    except AuthenticationError:
        raise ClusterError(f"{client.get_address()} {LOCKED_OUT}") from None
    except (OSError, RuntimeError) as error:
        there = known_job(client, job_id)
        if there is None:
            raise BulkembedError(f"{job_id} was not taken: {first_line(error)}") from error
        require_same(there, job["metadata"][DIGEST_KEY])


def require_same(job: Any, digest: str) -> None:
    """Raises ConfigError where the job is of another command, or was submitted by something else."""
    if (job.metadata or {}).get(DIGEST_KEY) != digest:
        raise ConfigError(f"--id: {job.submission_id} is {job.status}, and was submitted with another command or other files; give another")


def stop_job(client: Any, job_id: str) -> None:
    """Asks a job to stop, until it has heard so or has ended. A job whose process is about to start does not hear."""
    while not answered(client, client.stop_job, job_id):
        if answered(client, client.get_job_info, job_id).status.is_terminal():
            return
        time.sleep(STOP_SECONDS)


def known_job(client: Any, job_id: str) -> Any | None:
    """The job of this id. None where the head does not know it, or does not answer."""
    try:
        return client.get_job_info(job_id)
    except (OSError, RuntimeError):
        return None
