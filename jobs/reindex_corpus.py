"""Embed a whole corpus again, with another model, prompt or dimensions, beside the dataset in use:

    python jobs/reindex_corpus.py --config new.toml [--model Qwen/Qwen3-Embedding-4B] [--yes [--publish]]

Without --yes the job shows the plan and does nothing. With it, it is `bulkembed reindex`: readers keep the current dataset, and its
nightly runs go on. The job ends with the command that switches readers over. With --publish it runs once more, for what has changed
meanwhile, and then switches. `bulkembed rollback` goes back without an engine. Give the nightly job the new configuration then.

Exit code 3 means that the new dataset has far fewer documents than the current one, so readers were not switched.
"""

from __future__ import annotations

import sys

from bulkembed.__main__ import main


def arguments(given: list[str]) -> list[str]:
    """`reindex` where --yes is among the arguments, else `plan`, which takes no option of what follows."""
    if "--yes" in given:
        return ["reindex", *(argument for argument in given if argument != "--yes")]
    return ["plan", *(argument for argument in given if argument not in ("--publish", "--json"))]


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        sys.stdout.write(f"{__doc__}\n")  # the help of the command follows
    main(arguments(sys.argv[1:]))
