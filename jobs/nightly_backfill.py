"""Embed what changed since last night. For cron, Airflow, or a Ray job:

    python jobs/nightly_backfill.py --config run.toml [flags of `bulkembed run`]

An object's shards are named after its path and version (ETag), so only new and changed objects
are embedded; the new snapshot leaves out what is gone from the source. Without --config the file is
taken from BULKEMBED_CONFIG (several with `:` between them, as in PATH; later ones override). Exit codes
are those of `bulkembed run`: 1 means run it again; 3 means that the source lost more than `max_deletes`,
nothing was published, and a person must look.
"""

from __future__ import annotations

import os
import sys

from bulkembed.__main__ import main


def arguments(given: list[str], environment: dict[str, str]) -> list[str]:
    """The command line of tonight's run."""
    named = any(each == "--config" or each.startswith("--config=") for each in given)
    default = [] if named else [path for path in environment.get("BULKEMBED_CONFIG", "").split(os.pathsep) if path]
    return ["run", *(part for path in default for part in ("--config", path)), *given]


if __name__ == "__main__":
    main(arguments(sys.argv[1:], dict(os.environ)))
