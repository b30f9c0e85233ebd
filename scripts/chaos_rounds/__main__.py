"""Disturbs a run again and again, and counts the documents that were lost or doubled.

    scripts/chaos --faults 50 --seed 1                      all kinds of faults that fit, simulated engine, local files
    scripts/chaos --kinds pause,disk-full                   some kinds, or families of kinds
    scripts/chaos --s3 --proxy-faults 503,reset             an S3 server behind a proxy that also breaks single requests
    scripts/chaos --documents 1000000 --every 5             a long run, to see whether memory grows
    scripts/chaos --model minilm --faults 5 --every 20      the real engine

It starts a Ray cluster of several nodes on this machine, and `bulkembed run` on it as a user would. It kills and pauses processes,
nodes and drivers; it fills the disk, skews clocks, cuts the network, brings nodes with another bulkembed, damages objects of the output.
A run that ends early is started again. In every further night all files are written anew with other cuts, in another order and with some
new texts. A night ends with `verify`, and with a comparison with a run that nothing disturbed. Damaged objects that a run refuses, or that
`verify` reports, come back from a backup. The same seed and options make the same plan; .demo/chaos/faults.jsonl says what was done when.

The exit code is 1 where a document was lost or doubled, or a dataset was wrong in silence, and 0 where none was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from typing import Any

import numpy as np

from scripts.chaos_rounds import namespace
from scripts.chaos_rounds.disturb import DisturbedRun, command_line
from scripts.chaos_rounds.kinds import KINDS, named, plan_of
from scripts.chaos_rounds.material import WORK, first_documents, following_documents, model_folder, places
from scripts.chaos_rounds.nodes import Nodes
from scripts.chaos_rounds.outcome import Outcome
from scripts.chaos_rounds.scene import Scene


def main() -> None:
    options = parse_arguments()
    plan = plan_of(options)
    if any(kind.needs == "disk" for kind in plan):
        namespace.enter_namespace("scripts.chaos_rounds")
    WORK.mkdir(parents=True, exist_ok=True)
    model, started = model_folder(options.model), time.monotonic()
    with places(options) as where:
        os.environ.update(where.env)  # before the nodes start: credentials do not travel with a run
        nodes = Nodes()
        try:
            scene = Scene(where, nodes, command_line(options, where, model), random.Random(options.seed))  # noqa: S311
            disturbed = DisturbedRun(options, scene, plan)
            outcomes = all_nights(options, disturbed, model)
        finally:
            nodes.cluster.shutdown()
    result = {
        **{key: getattr(options, key) for key in ("model", "layout", "seed", "documents")},
        "store": "s3" if options.s3 else "local",
        "proxy_faults": ",".join(options.proxy_faults),
        "nights": disturbed.night,
        "starts": scene.starts,
        **disturbed.record.result(),
        **totals(outcomes),
        "wall_s": round(time.monotonic() - started),
        "driver_mb": disturbed.memory_of_quarters(),
    }
    print(json.dumps(result) if options.json else "\n".join(f"{key} {value}" for key, value in result.items()), flush=True)
    sys.exit(any(outcome.is_wrong for outcome in outcomes))


def all_nights(options: argparse.Namespace, disturbed: DisturbedRun, model: str) -> list[Outcome]:
    """Nights until there were as many as asked for, and every fault of the plan has happened."""
    chance, outcomes = np.random.default_rng(options.seed), []
    documents = first_documents(options.documents, options.model)
    while disturbed.night < options.nights or disturbed.plan:
        disturbed.scene.where.write_source(documents, chance)
        outcomes.append(disturbed.one_night(options.documents, model))
        documents = following_documents(documents, chance, options.changed)
    return outcomes


def totals(outcomes: list[Outcome]) -> dict[str, Any]:
    """What was wrong in all nights."""
    return {
        "lost": sum(outcome.lost for outcome in outcomes),
        "doubled": sum(outcome.doubled for outcome in outcomes),
        "different": sum(outcome.different for outcome in outcomes),
        "problems": [problem for outcome in outcomes for problem in outcome.problems],
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(kind.name for kind in KINDS)
    parser.add_argument("--faults", type=int, default=50, help="faults in all (default: %(default)s)")
    parser.add_argument("--kinds", type=named, help=f"kinds of faults, or families of them (default: all that fit): {names}")
    parser.add_argument("--plan", type=named, help="faults in this order, those of a working run one after each finished shard")
    parser.add_argument("--every", type=float, default=2, help="seconds between faults, on average (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of all random choices (default: %(default)s)")
    parser.add_argument("--documents", type=int, default=20_000, help="documents of the corpus (default: %(default)s)")
    parser.add_argument(
        "--nights", type=int, default=1, help="nights at least: further ones come until all faults have (default: %(default)s)"
    )
    parser.add_argument("--changed", type=float, default=0.05, help="share of texts that change from night to night (default: %(default)s)")
    parser.add_argument("--shard-rows", type=int, default=200, help="rows of a shard (default: %(default)s)")
    parser.add_argument("--layout", choices=["fused", "split"], default="split", help="layout of the run (default: %(default)s)")
    parser.add_argument("--model", choices=["simulated", "minilm"], default="simulated", help="engine (default: %(default)s)")
    parser.add_argument("--tokens-per-second", type=float, default=2000, help="of each simulated device (default: %(default)s)")
    parser.add_argument("--s3", action="store_true", help="source and output on an S3 server behind a proxy")
    parser.add_argument(
        "--proxy-faults",
        type=lambda text: text.split(","),
        default=[],
        help="faults of single requests to S3: 500,503,reset,truncate,stall,latency",
    )
    parser.add_argument("--proxy-rate", type=float, default=0.05, help="share of requests that the proxy breaks (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
