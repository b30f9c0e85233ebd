"""Embed what has changed since last night. It is made for cron, Airflow, or a Ray job:

    python jobs/nightly_backfill.py --config run.toml [flags of `bulkembed run`]

Only documents whose text is new are embedded, whatever happened to the files. The new snapshot leaves out
what is gone from the source. Without --config, the environment
variable BULKEMBED_CONFIG names the file. It may name several with `:` between them; later ones override.
The exit codes are those of `bulkembed run`. 1 means: run it again. 3 means: more documents would leave
than `max_deletes` allows, or the source is not ready; nothing was published, and a person must look.
"""

from __future__ import annotations

import os
import sys

from bulkembed.__main__ import main


def arguments(given: list[str], environment: dict[str, str]) -> list[str]:
    """The command line of tonight's run."""
    has_config = any(argument == "--config" or argument.startswith("--config=") for argument in given)
    default = [] if has_config else [path for path in environment.get("BULKEMBED_CONFIG", "").split(os.pathsep) if path]
    return ["run", *(part for path in default for part in ("--config", path)), *given]


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        sys.stdout.write(f"{__doc__}\n")  # the help of the command follows
    main(arguments(sys.argv[1:], dict(os.environ)))
