"""Submit a run to a Ray cluster and follow its log:

    python -m jobs.submit --address http://127.0.0.1:8265 [--no-wait] -- run --config run.toml

What stands behind `--` is the command line of `bulkembed`. The current folder travels along (so
run.toml is found there); the cluster's nodes need bulkembed installed (cluster.yaml does that).
Exit code: 0 when the job succeeded or --no-wait was given, 1 otherwise.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

EXCLUDED = [".venv/", ".git/", ".demo/", "**/*.parquet", "**/*.safetensors"]


def submission(command: list[str], working_dir: str) -> dict[str, Any]:
    """What is handed to Ray."""
    return {
        "entrypoint": shlex.join(["python", "-m", "pipeline", *command]),
        "runtime_env": {"working_dir": working_dir, "excludes": EXCLUDED},
        "metadata": {"tool": "bulkembed"},
    }


def follow(client: Any, job_id: str) -> int:
    """Prints the job's log until it ends; its exit code."""
    import asyncio

    from ray.job_submission import JobStatus

    async def tail() -> None:
        async for lines in client.tail_job_logs(job_id):
            sys.stdout.write(lines)
            sys.stdout.flush()

    asyncio.run(tail())
    status = client.get_job_status(job_id)
    sys.stdout.write(f"{job_id}: {status}\n")
    return 0 if status == JobStatus.SUCCEEDED else 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Submit a run to a Ray cluster.")
    parser.add_argument("--address", default="http://127.0.0.1:8265", help="of the cluster's dashboard (ray dashboard cluster.yaml)")
    parser.add_argument("--no-wait", action="store_true", help="return once the job is queued")
    parser.add_argument("--working-dir", default=".", help="folder that travels along")
    parser.add_argument("command", nargs="+", help="of bulkembed, behind --")
    options = parser.parse_args()

    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(options.address)
        job_id = client.submit_job(**submission(options.command, options.working_dir))
    except (ConnectionError, RuntimeError) as error:
        sys.stderr.write(f"submit: no job at {options.address}: {str(error).splitlines()[0]}\n")
        return 1
    sys.stdout.write(f"{job_id} submitted to {options.address}\n")
    return 0 if options.no_wait else follow(client, job_id)


if __name__ == "__main__":
    sys.exit(main())
