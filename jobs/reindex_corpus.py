"""Embed a whole corpus again, with another model or other dimensions, beside the dataset in use:

    python jobs/reindex_corpus.py --config run.toml --model Qwen/Qwen3-Embedding-4B --dims 1024,256

Another model or other dimensions make a line of their own, in another folder below data/. Readers keep the
old dataset until `bulkembed publish --snapshot N` makes the new line current. The job says which N. Without
--yes it shows the plan and does nothing. Exit code 3 means that too many documents of the line's own last
snapshot would leave, so nothing was published.
"""

from __future__ import annotations

import sys

from bulkembed.__main__ import main


def arguments(given: list[str]) -> list[str]:
    """`run` where --yes is among the arguments, else `plan`."""
    return ["run" if "--yes" in given else "plan", *(argument for argument in given if argument != "--yes")]


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        sys.stdout.write(f"{__doc__}\n")  # the help of the command follows
    main(arguments(sys.argv[1:]))
