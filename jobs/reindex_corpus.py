"""Embed a whole corpus anew, with another model or other dimensions, beside the dataset in use:

    python jobs/reindex_corpus.py --config run.toml --model Qwen/Qwen3-Embedding-4B --dims 1024,256

Another model or other dimensions are another fingerprint, and so another folder below data/: readers
keep the old dataset until the run is complete and its snapshot is the newest. Without --yes the
plan is shown and nothing is done. Exit code 3: the new dataset would drop rows of the old one (a smaller
source, a --limit, more rejects), so nothing was published.
"""

from __future__ import annotations

import sys

from bulkembed.__main__ import main


def arguments(given: list[str]) -> list[str]:
    """`run` where --yes is among the arguments, else `plan`."""
    return ["run" if "--yes" in given else "plan", *(each for each in given if each != "--yes")]


if __name__ == "__main__":
    main(arguments(sys.argv[1:]))
