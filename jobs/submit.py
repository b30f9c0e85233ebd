"""Submit a command of bulkembed to a Ray cluster as a job, and follow its log to the end:

    python jobs/submit.py [--address http://127.0.0.1:8265] [--id NAME] [--no-wait] -- run --config run.toml
    python jobs/submit.py [--address ...] --attach ID       # follows a job that was submitted before
    python jobs/submit.py [--address ...] --stop ID         # stops it, with the time that its shards in flight need

The command line of `bulkembed` follows `--`. It runs on the cluster, with the bulkembed and the credentials there (cluster.yaml installs
it). Only the --config files are sent from this machine. If the head wants a token, set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or
RAY_AUTH_TOKEN_PATH, as for every client of Ray.

The id of a job is made of the command and of what its --config files hold. While such a job is under way, the same call follows it and
starts no second one. Once it has ended, the same call starts a further attempt, ID.2. With --id NAME the work is called NAME. A repeat
then starts nothing where the work has succeeded, and another command of that name is refused while it is under way or has succeeded.

The exit code is the job's own once the job has ended, and 143 if somebody stopped it. With --no-wait and --stop it is 0. It is 2 if
nothing was submitted: no head, no token, no such file, or no such job. It is 1 if the head refused the job, or has not answered for so
long that the job's end is unknown. It is 130 or 143 if following was interrupted, and 1 if the log cannot be printed. Then the job goes on.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import shlex
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from bulkembed.cli.console import out, replace_unprintable
from bulkembed.cli.signals import TIDY_SECONDS
from bulkembed.cluster import job_log, jobs_client
from bulkembed.cluster.job_log import Log
from bulkembed.config import sent_command
from bulkembed.errors import BulkembedError, ConfigError, OutputError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
# Ray kills a job this long after its grace. A run ends itself before that.
KILL_SECONDS = TIDY_SECONDS + 11
GRACE_KEY = "grace_seconds"  # of a job's metadata
USAGE = """submit.py [-h] [--address ADDRESS] [--id NAME] [--no-wait] -- COMMAND [OPTION ...]
       submit.py [-h] [--address ADDRESS] (--attach ID | --stop ID)"""


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


def submission(command: list[str], folder: Path, grace: float, digest: str) -> dict[str, Any]:
    """The arguments of `submit_job`. `folder` becomes the job's working folder, so no name in it may be that of a module."""
    return {
        "entrypoint": shlex.join(["python", "-m", "bulkembed", *command]),
        # Ray gives a job that is to stop 3 s, unless its own environment says otherwise.
        "runtime_env": {"working_dir": str(folder), "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(math.ceil(grace + KILL_SECONDS))}},
        "metadata": {"tool": "bulkembed", GRACE_KEY: f"{grace:g}", jobs_client.DIGEST_KEY: digest},
    }


def say(text: str) -> None:
    """Prints. Raises OutputError, which is not taken for a fault of the connection."""
    with out.written():
        sys.stdout.write(text)
        sys.stdout.flush()


def interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(number)


class Submission:
    """One call of this file. `fate` is what has become of the job so far, for whoever interrupts the call."""

    def __init__(self, address: str) -> None:
        self.address, self.fate = address, "nothing was submitted"

    def goes_on(self, job_id: str) -> None:
        self.fate = f"{job_id} goes on; to follow it: {self.call('--attach', job_id)}; to stop it: {self.call('--stop', job_id)}"

    def call(self, option: str, job_id: str) -> str:
        return shlex.join(["python", "jobs/submit.py", "--address", self.address, option, job_id])

    def submit(self, command: list[str], name: str | None) -> tuple[Any, str]:
        """Submits the command unless it is under way, or is done and has a name. Returns a client, and the id of the job to follow."""
        with TemporaryDirectory(prefix="bulkembed-submit-") as folder:
            sent = sent_command.pack_configs(command, Path(folder))
            digest = sent_command.digest(sent, Path(folder))
            job = submission(sent, Path(folder), sent_command.grace_seconds(command), digest)
            client = jobs_client.connect_client(self.address)
            work = name or f"bulkembed_{digest}"
            last = jobs_client.newest_attempt(client, work)
            if last is not None and (not last.status.is_terminal() or (name and str(last.status) == "SUCCEEDED")):
                jobs_client.require_same(last, digest)
                job_id = str(last.submission_id)
                self.goes_on(job_id)
                say(f"{job_id}: {last.status} at {self.address}; not started again\n")
                return client, job_id
            job_id = jobs_client.attempt_id(work, jobs_client.attempt_of(work, last.submission_id) + 1 if last else 1)
            self.fate = f"{job_id} may be submitted; to see: {self.call('--attach', job_id)}; to stop it: {self.call('--stop', job_id)}"
            jobs_client.submit_job(client, job_id, job)
        self.goes_on(job_id)
        say(f"{job_id} submitted to {self.address}\n")
        return client, job_id

    def attach(self, job_id: str) -> int:
        """Follows a job that was submitted before. Returns its exit code."""
        client = jobs_client.connect_client(self.address)
        job_id = str(jobs_client.require_job(client, job_id).submission_id)
        self.goes_on(job_id)
        return self.follow(client, job_id)

    def follow(self, client: Any, job_id: str) -> int:
        """Prints the log of a job to its end. Returns the job's exit code."""
        job = job_log.follow(client, job_id, Log(say))
        say(f"{job_log.end_text(job_id, job)}\n")
        return job_log.exit_code(job)

    def stop(self, job_id: str) -> int:
        """Stops a job, prints what its log says from now on, and returns when it has ended."""
        client = jobs_client.connect_client(self.address)
        job = jobs_client.require_job(client, job_id)
        job_id = str(job.submission_id)
        if not job.status.is_terminal():
            printed = 0
            with suppress(*job_log.faults()):  # a log that cannot be read keeps nobody from stopping its job
                printed = len(client.get_job_logs(job_id))
            jobs_client.stop_job(client, job_id)
            self.fate = f"{job_id} stops all the same"
            grace = (job.metadata or {}).get(GRACE_KEY)
            say(f"{job_id} stops; {f'shards in flight have {grace} s to be published' if grace else 'Ray gives it 3 s'}\n")
            job = job_log.follow(client, job_id, Log(say, printed))
        say(f"{job_log.end_text(job_id, job)}\n")
        return 0


def require_name(name: str | None) -> None:
    if name is not None and not jobs_client.NAME.fullmatch(name):
        raise ConfigError(f"--id {name}: takes up to 64 letters, digits, - and _, and begins with a letter or digit")


def carry_out(options: argparse.Namespace) -> int:
    require_name(options.id)
    call = Submission(head_address(options.address, os.environ))
    os.environ["RAY_API_SERVER_ADDRESS"] = call.address  # Ray prefers this variable to the argument of its client
    try:
        if options.attach:
            return call.attach(options.attach)
        if options.stop:
            return call.stop(options.stop)
        sent_command.refuse_secrets(options.command)
        sent_command.refuse_relative(options.command)
        client, job_id = call.submit(options.command, options.id)
        return 0 if options.no_wait else call.follow(client, job_id)
    except OutputError as error:
        sys.stderr.write(f"submit: {error}; {call.fate}\n")
        return error.exit_code
    except KeyboardInterrupt as error:
        sys.stderr.write(f"submit: {call.fate}\n")
        return 128 + int(error.args[0] if error.args else signal.SIGINT)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(usage=USAGE, description="Submit a command of bulkembed to a Ray cluster, and follow its log.")
    made.add_argument("--address", help=f"Address of the head's dashboard. [default: RAY_API_SERVER_ADDRESS, else {DEFAULT_ADDRESS}]")
    made.add_argument("--id", metavar="NAME", help="Name of the work. A repeat starts nothing where it is under way, or has succeeded.")
    made.add_argument("--no-wait", action="store_true", help="Return when the job is queued, without following its log.")
    made.add_argument("--attach", metavar="ID", help="Follow the log of a job that was submitted before.")
    made.add_argument("--stop", metavar="ID", help="Stop a job. Its shards in flight are published within its grace_seconds.")
    command_help = (
        "A command of bulkembed and its options, as in `-- run --config run.toml`. Of local files, only the --config files are sent."
    )
    made.add_argument("command", nargs="*", metavar="COMMAND", help=command_help)
    return made


def main() -> int:
    arguments = parser()
    options = arguments.parse_args()
    if sum(map(bool, (options.command, options.attach, options.stop))) != 1:
        arguments.error("give one of a COMMAND, --attach ID and --stop ID")
    if not options.command and (options.id or options.no_wait):
        arguments.error("--id and --no-wait go with a COMMAND")
    replace_unprintable()
    logging.disable()  # what Ray logs is useless here, or ends as one line of our own
    signal.signal(signal.SIGTERM, interrupt)
    try:
        return carry_out(options)
    except BulkembedError as error:
        sys.stderr.write(f"submit: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
