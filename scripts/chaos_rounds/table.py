"""Results of several rounds as one Markdown table: `python -m scripts.chaos_rounds.table < ROUNDS`, a line of `--json` for each round."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

from scripts.chaos_rounds.kinds import BY_NAME


def table_of(rounds: list[dict[str, Any]]) -> str:
    """A row for each kind, and one for all. Faults are told apart by the store of their round."""
    local, s3, refusals = Counter[str](), Counter[str](), Counter[str]()
    for result in rounds:
        for kind, counts in result["kinds"].items():
            (s3 if result["store"] == "s3" else local)[kind] += counts["faults"]
            refusals[kind] += counts["refusals"]
    kinds = [kind for kind in BY_NAME if local[kind] or s3[kind]]
    rows = [["kind", "faults, local", "faults, S3", "starts that refused to go on"], ["---"] * 4]
    rows += [[kind, str(local[kind]), str(s3[kind]), str(refusals[kind])] for kind in kinds]
    rows.append(["all", str(local.total()), str(s3.total()), str(refusals.total())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def sums_of(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """What all rounds came to."""
    sums: Counter[str] = Counter()
    for result in rounds:
        for name in ("nights", "starts", "lost", "doubled", "different", "wall_s"):
            sums[name] += result[name]
        for name in ("problems", "unexpected", "tracebacks"):
            sums[name] += len(result[name])
        for outcome, count in result["damages"].items():
            sums[f"damages {outcome}"] += count
    return dict(sums)


if __name__ == "__main__":
    results = [json.loads(line) for line in sys.stdin]
    print(table_of(results))
    print(json.dumps(sums_of(results)))
