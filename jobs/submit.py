"""Submit a command of bulkembed to a Ray cluster as a job, and follow its log to the end:

    python jobs/submit.py [--address http://127.0.0.1:8265] [--no-wait] -- run --config run.toml

The command line of `bulkembed` follows `--`. It runs on the cluster, with the bulkembed and the credentials there (cluster.yaml installs
it). Only the --config files are sent from this machine. If the head wants a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or
RAY_AUTH_TOKEN_PATH, as for every client of Ray.

The exit code is the job's own once the job has ended, and 143 if somebody stopped it. With --no-wait it is 0. It is 2 if nothing was
submitted: no head, no token, or no such file. It is 1 if the head refused the job, or has not answered for so long that the job's end is
unknown. It is 130 or 143 if following was interrupted, and 1 if the log cannot be printed. Then the job goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from bulkembed.cli.console import out, replace_unprintable
from bulkembed.config.run_config import RunConfig
from bulkembed.config.settings import parse_setting
from bulkembed.config.toml_files import read_toml
from bulkembed.errors import BulkembedError, ClusterError, ConfigError, OutputError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ANSWER_SECONDS = 20  # the head may take for an answer
QUIET_SECONDS = 60  # without a line of the log; then the connection is made again
RETRY_SECONDS = 2.0
MAX_UNSEEN_SECONDS = 300.0  # without an answer of the head; then following ends
PLACES = {"source", "output", "model"}
LOCKED_OUT = (
    "wants a token, and not the one that is set here, if any: "
    "set RAY_AUTH_MODE=token, and the head's token in RAY_AUTH_TOKEN or its file in RAY_AUTH_TOKEN_PATH"
)


def head_address(given: str | None, environment: Mapping[str, str]) -> str:
    """The address of the head's dashboard. Raises ConfigError where it is not an address of one."""
    of_ray = environment.get("RAY_ADDRESS", "")
    default = of_ray if of_ray.startswith("http") else DEFAULT_ADDRESS
    address = (given or environment.get("RAY_API_SERVER_ADDRESS") or default).rstrip("/")
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"--address {address}: is not the address of a head's dashboard, as in {DEFAULT_ADDRESS}")
    if "@" in parts.netloc:
        raise ConfigError("--address: holds credentials, which would be printed; a head takes a token")
    return address


def pack_configs(command: list[str], folder: Path) -> list[str]:
    """Copies the configuration files of `command` into `folder`, and returns the command with their names there.

    Raises ConfigError where one cannot be read."""
    names: list[str] = []

    def pack(path: str) -> str:
        # The number keeps files of the same name apart. It also keeps a file from shadowing a Python module.
        names.append(f"{len(names) + 1}-{Path(path).name}")
        try:
            (folder / names[-1]).write_bytes(Path(path).expanduser().read_bytes())
        except OSError as error:
            raise ConfigError(f"--config {path}: {error.strerror}") from None
        return names[-1]

    rest = iter(command)
    sent = []
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name != "--config":
            sent.append(argument)
        elif equals:
            sent.append(f"--config={pack(value)}")
        else:
            path = next(rest, None)
            if path is None:
                raise ConfigError("--config: needs a file")
            sent += ["--config", pack(path)]
    return sent


def options_of(command: list[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each argument's name, its value if it takes one, and the keys that it sets."""
    for argument, following in zip(command, [*command[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        value = value if equals else following
        yield name, value, parse_setting(value) if name == "--set" else {name.removeprefix("--"): value}


def refuse_relative(command: list[str]) -> None:
    """Raises ConfigError for a local place that means another one in the job's working folder, which Ray deletes in the end."""
    for name, value, table in options_of(command):
        keys = read_toml(Path(value)) if name == "--config" and value else table
        for key in keys.keys() & {*PLACES, "feed", "ids"}:
            for place in map(str, keys[key] if isinstance(keys[key], list) else [keys[key]]):
                here = place.startswith((".", "~")) if key == "model" else "://" not in place and not place.startswith("/")
                if here:
                    raise ConfigError(f"{key}: {place} is not the same on the cluster; give an absolute path there, or a URI")


def refuse_secrets(command: list[str]) -> None:
    """Raises ConfigError where the command line holds secrets: Ray shows it on the dashboard and logs it."""
    for name, value, table in options_of(command):
        if name == "--set" and ("storage" in table or "env" in (table.get("engine") or {})):
            key = value.partition("=")[0]
            raise ConfigError(f"--set {key}: everybody who sees the cluster sees a job's command line; write it into the --config file")
        for key in PLACES & table.keys():
            try:
                RunConfig.no_credentials(str(table[key]))
            except ValueError as error:
                raise ConfigError(f"{key}: {error}") from None


def submission(command: list[str], folder: Path) -> dict[str, Any]:
    """The arguments of `submit_job`. `folder` becomes the job's working folder, so no name in it may be that of a module."""
    return {
        "entrypoint": shlex.join(["python", "-m", "bulkembed", *command]),
        "runtime_env": {"working_dir": str(folder)},
        "metadata": {"tool": "bulkembed"},
    }


def connect_client(address: str) -> Any:
    """A client of the head at `address`. Raises ClusterError where none answers, or it wants another token."""
    import requests
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):  # type: ignore[misc]
        def _do_request(self, method: str, endpoint: str, **given: Any) -> Any:
            """Adds a timeout. Ray's own client waits for ever."""
            return super()._do_request(method, endpoint, **({"timeout": ANSWER_SECONDS} | given))

    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray prefers this variable to its argument
    advice = "a head has a Jobs API if its Ray was installed as ray[default]"
    try:
        return Client(address)
    except AuthenticationError:
        raise ClusterError(f"{address} {LOCKED_OUT}") from None
    except (ConnectionError, requests.exceptions.ConnectionError):
        raise ClusterError(f"no head answers at {address}; {advice}") from None
    except requests.exceptions.Timeout:
        raise ClusterError(f"no head answers at {address} within {ANSWER_SECONDS} s") from None
    except (RuntimeError, ValueError, KeyError, requests.exceptions.RequestException) as error:
        raise ClusterError(f"what answers at {address} has no Jobs API ({first_line(error)}); {advice}") from error


def submit_job(client: Any, job_id: str, job: dict[str, Any]) -> None:
    """Submits the job. Raises ClusterError where the token is refused, BulkembedError where the head does not take the job."""
    from ray.exceptions import AuthenticationError

    try:
        client.submit_job(submission_id=job_id, **job)
    except AuthenticationError:
        raise ClusterError(f"{client.get_address()} {LOCKED_OUT}") from None
    except (OSError, RuntimeError) as error:
        raise BulkembedError(f"{job_id} was not taken: {first_line(error)}") from error


def say(text: str) -> None:
    """Prints. Raises OutputError, which is not taken for a fault of the connection."""
    with out.written():
        sys.stdout.write(text)
        sys.stdout.flush()


class Log:
    """Remembers how much of a job's log is printed. Every connection sends the log from its start."""

    def __init__(self) -> None:
        self.printed = 0

    def show(self, text: str, start: int) -> int:
        """Prints the new part of `text`, which begins at position `start` of the log. Returns the position of its end."""
        new = text[max(0, self.printed - start) :]
        say(new)
        self.printed += len(new)
        return start + len(text)


async def tail(client: Any, job_id: str, log: Log) -> None:
    """Prints the log until the connection ends. The job may go on after that."""
    lines = aiter(client.tail_job_logs(job_id))
    position = 0
    while (text := await asyncio.wait_for(anext(lines, None), QUIET_SECONDS)) is not None:
        position = log.show(text, position)


async def follow(client: Any, job_id: str) -> int:
    """Prints the job's log until the job ends, and connects again whenever the connection ends. Returns the exit code.

    Raises BulkembedError where the head has not answered for MAX_UNSEEN_SECONDS."""
    from aiohttp import ClientError
    from ray.exceptions import AuthenticationError

    faults = (OSError, RuntimeError, ClientError, AuthenticationError)
    log, seen = Log(), time.monotonic()
    while True:
        with suppress(*faults):  # the next call shows what is wrong, if it lasts
            await tail(client, job_id, log)
        try:
            job = await asyncio.to_thread(client.get_job_info, job_id)
            if job.status.is_terminal():
                log.show(await asyncio.to_thread(client.get_job_logs, job_id), 0)
                return report_end(job_id, job)
            seen = time.monotonic()
        except faults as error:
            if time.monotonic() - seen > MAX_UNSEEN_SECONDS:
                raise BulkembedError(f"{job_id} is out of sight, and may go on: {first_line(error)}") from error
        await asyncio.sleep(RETRY_SECONDS)


def report_end(job_id: str, job: Any) -> int:
    """Prints how the job has ended, and returns its exit code."""
    code: int | None = job.driver_exit_code
    if code is None:  # the process did not end by itself
        code = {"SUCCEEDED": 0, "STOPPED": 128 + signal.SIGTERM}.get(str(job.status), 1)
        say(f"{job_id}: {job.status}: {(job.message or '').strip().splitlines()[0] if job.message else 'no reason given'}\n")
        return code
    say(f"{job_id}: {job.status}, exit code {code}\n")
    return 128 - code if code < 0 else code  # below 0 it is the signal that ended the process


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(number)


def submit(options: argparse.Namespace) -> int:
    address = head_address(options.address, os.environ)
    refuse_secrets(options.command)
    refuse_relative(options.command)
    job_id = f"bulkembed_{secrets.token_hex(6)}"
    fate = "was not submitted"
    try:
        with TemporaryDirectory(prefix="bulkembed-submit-") as name:
            job = submission(pack_configs(options.command, Path(name)), Path(name))
            client = connect_client(address)
            fate = f"may be submitted; to stop it: ray job stop --address {address} {job_id}"
            submit_job(client, job_id, job)
        fate = f"goes on; to stop it: ray job stop --address {address} {job_id}"
        say(f"{job_id} submitted to {address}\n")
        return 0 if options.no_wait else asyncio.run(follow(client, job_id))
    except OutputError as error:
        sys.stderr.write(f"submit: {error}; {job_id} {fate}\n")
        return error.exit_code
    except KeyboardInterrupt as error:
        sys.stderr.write(f"submit: {job_id} {fate}\n")
        return 128 + int(error.args[0] if error.args else signal.SIGINT)


def main() -> int:
    parser = argparse.ArgumentParser(
        usage="submit.py [-h] [--address ADDRESS] [--no-wait] -- COMMAND [OPTION ...]",
        description="Submit a command of bulkembed to a Ray cluster, and follow its log.",
    )
    parser.add_argument("--address", help=f"Address of the head's dashboard. [default: RAY_API_SERVER_ADDRESS, else {DEFAULT_ADDRESS}]")
    parser.add_argument("--no-wait", action="store_true", help="Return when the job is queued, without following its log.")
    command_help = (
        "A command of bulkembed and its options, as in `-- run --config run.toml`. Of local files, only the --config files are sent."
    )
    parser.add_argument("command", nargs="+", metavar="COMMAND", help=command_help)
    options = parser.parse_args()
    replace_unprintable()
    logging.disable()  # what Ray logs is useless here, or ends as one line of our own
    signal.signal(signal.SIGTERM, interrupt)
    try:
        return submit(options)
    except BulkembedError as error:
        sys.stderr.write(f"submit: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
