"""Embed what has changed since last night. It is made for cron, Airflow, or a Kubernetes CronJob:

    python jobs/nightly_backfill.py --config run.toml --run-key 2026-11-27 [flags of `bulkembed run`]

Only documents whose text is new are embedded, whatever happened to the files. The new snapshot leaves out what is gone from the source.

NIGHTLY below is this team's configuration. The --config files lie over it, and options lie over both. Without --config, the environment
variable BULKEMBED_CONFIG names the file. It may name several with `:` between them; later ones override.

The last line on standard output is one JSON object. Everything else goes to standard error, each line with its time (ISO 8601, UTC).
--dry-run says in the same line what would be embedded, changed and deleted, and writes nothing. A second run of the same --run-key does
nothing. The exit codes are those of `bulkembed run`. 1 means: run it again. 3 means: a guard holds the night back, such as `max_deletes`;
nothing was published, and a person must look.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from bulkembed.__main__ import main


@dataclass(frozen=True)
class NightlyConfig:
    """The keys of a run that a team wants every night. None: as the --config file, an option, or bulkembed has it."""

    source: str | tuple[str, ...] | None = None
    output: str | None = None
    model: str | None = None
    require: tuple[str, ...] = ()  # names such as _SUCCESS that the source's writer leaves last
    max_deletes: float | None = None  # documents that may leave in a night: a count, or below 1 a share
    max_rejects: float | None = None  # the same of rejected rows
    if_running: Literal["skip", "wait", "fail"] | None = None  # where last night's run is still under way
    more: Mapping[str, Any] = field(default_factory=dict)  # any other key of RunConfig, such as {"engine": {"replicas": 8}}

    def keys(self) -> dict[str, Any]:
        """What is set here, as RunConfig has it."""
        own = {name: value for name, value in asdict(self).items() if name != "more" and value not in (None, ())}
        return dict(self.more) | own


NIGHTLY = NightlyConfig()


class TimedLines(io.TextIOBase):
    """A stream that begins each line with the time. It is no terminal, so that no line is written twice."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_begun = False

    def write(self, text: str) -> int:
        for line in text.splitlines(keepends=True):
            if not self.is_begun and line.strip():
                self.stream.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} ")
            self.stream.write(line)
            self.is_begun = not line.endswith("\n") and (self.is_begun or bool(line.strip()))
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def fileno(self) -> int:
        return self.stream.fileno()


def arguments(given: list[str], environment: Mapping[str, str]) -> list[str]:
    """The command line of tonight's run."""
    has_config = any(argument == "--config" or argument.startswith("--config=") for argument in given)
    default = [] if has_config else [path for path in environment.get("BULKEMBED_CONFIG", "").split(os.pathsep) if path]
    as_json = [] if "--json" in given else ["--json"]
    return ["run", *as_json, *(part for path in default for part in ("--config", path)), *given]


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        sys.stdout.write(f"{__doc__}\n")  # the help of the command follows
    sys.stderr = TimedLines(sys.stderr)
    main(arguments(sys.argv[1:], os.environ), NIGHTLY.keys())
