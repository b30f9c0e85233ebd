"""Checks bulkembed against servers of S3, Azure and Google on this machine, and writes the table of docs/stores.md.

scripts/stores                        all servers; the exit code is 1 where a check fails
scripts/stores --only azurite         one of them, without writing the table
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bulkembed import __version__
from bulkembed.storage import retry
from scripts.store_checks.checks import NAMES, outcome
from scripts.store_checks.servers import CLIENTS as CLIENT_FOLDER
from scripts.store_checks.servers import SERVERS, Server, install, running, version_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "stores.md"
TABLE = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end of table -->)", re.DOTALL)
CLIENTS = ("fsspec", "s3fs", "adlfs", "gcsfs")
# The same tests as everywhere, with the classes of the clients that the lock file has not. Their imports warn.
ERRORS_OF_CLIENTS = """
import sys
import pytest
sys.path.append(sys.argv[1])
sys.exit(pytest.main(["-q", "-W", "default", "tests/storage/test_faults.py"]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[server.name for server in SERVERS], help="a server; repeatable")
    only = parser.parse_args().only
    install()
    retry.FIRST_WAIT_SECONDS = 0.02
    errors = subprocess.run([sys.executable, "-c", ERRORS_OF_CLIENTS, str(CLIENT_FOLDER)], check=False, cwd=PAGE.parents[1])
    results = {server: outcomes(server) for server in SERVERS if only is None or server.name in only}
    if only is None:
        PAGE.write_text(TABLE.sub(lambda _: table(results), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(errors.returncode != 0 or any(found.startswith("FAILED") for each in results.values() for found in each.values()))


def outcomes(server: Server) -> dict[str, str]:
    found = {}
    with running(server) as url:
        for name in NAMES:
            found[name] = outcome(name, server, url)
            print(f"{server.name:22} {name:26} {found[name]}", flush=True)
    return found


def table(results: dict[Server, dict[str, str]]) -> str:
    """The table as Markdown, with the day and the versions."""
    heads = [f"{server.name} {version_of(server.package)} (`{server.protocol}://`)" for server in results]
    clients = ", ".join(f"{name} {version(name)}" for name in CLIENTS)
    lines = [f"{datetime.now(UTC).date()}, bulkembed {__version__}, {clients}.", "", row("", heads), row("---", ["---"] * len(heads))]
    lines += [row(name, [found[name] for found in results.values()]) for name in NAMES]
    return "\n".join([*lines, ""])


def row(first: str, cells: list[str]) -> str:
    return f"| {' | '.join([first, *cells])} |"


if __name__ == "__main__":
    main()
