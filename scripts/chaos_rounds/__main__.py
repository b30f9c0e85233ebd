"""Kills parts of a run again and again, and counts the documents that were lost or doubled.

    scripts/chaos --kills 50 --seed 1                       simulated engine, local files
    scripts/chaos --s3 --faults 503,reset,truncate          an S3 server behind a proxy that breaks requests
    scripts/chaos --documents 1000000 --every 5             a long run, to see whether memory grows
    scripts/chaos --model minilm --kills 5 --every 20       the real engine

It starts a Ray cluster of several nodes on this machine, and `bulkembed run` on it as a user would. It kills embedding
actors, prepare and publish tasks, whole nodes and the driver. A run that ends early is started again. In every further night all files
are written anew with other cuts, in another order and with some new texts. The exit code is 1 where a document was lost or doubled, and 0
where none was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

import numpy as np

from scripts.chaos_rounds.disturb import DisturbedRun, command_line
from scripts.chaos_rounds.material import WORK, first_documents, following_documents, model_folder, places
from scripts.chaos_rounds.nodes import Nodes
from scripts.chaos_rounds.outcome import FAULTS, MAX_COMPARED, count_faults, differs_from_undisturbed


def main() -> None:
    options = parse_arguments()
    WORK.mkdir(parents=True, exist_ok=True)
    model, chance = model_folder(options.model), np.random.default_rng(options.seed)
    started = time.monotonic()
    with places(options) as where:
        os.environ.update(where.env)  # before the nodes start: credentials do not travel with a run
        nodes = Nodes()
        try:
            disturbed = DisturbedRun(options, command_line(options, where, model), nodes)
            documents = first_documents(options.documents, options.model)
            for night in range(1, options.nights + 1):
                where.write_source(documents, chance)
                disturbed.complete(options.kills * night // options.nights)
                documents = following_documents(documents, chance)
        finally:
            nodes.cluster.shutdown()
        faults = count_faults(where.output, where.storage, options.documents)
        if options.model == "simulated" and options.documents <= MAX_COMPARED:
            faults["different"] = differs_from_undisturbed(where, model)
    result = {
        **{key: getattr(options, key) for key in ("model", "layout", "seed", "documents", "nights")},
        "store": f"s3 with {options.faults}" if options.s3 else "local",
        "killed": dict(disturbed.killed),
        "starts": disturbed.starts,
        **faults,
        "wall_s": round(time.monotonic() - started),
        "driver_mb": disturbed.memory_of_quarters(),
    }
    print(json.dumps(result) if options.json else "  ".join(f"{key} {value}" for key, value in result.items()))
    sys.exit(any(faults.get(name) for name in FAULTS))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="kills in all (default: %(default)s)")
    parser.add_argument(
        "--victims",
        type=lambda text: text.split(","),
        help="kinds to kill, one after each finished shard: actor,node,task,driver",
    )
    parser.add_argument("--every", type=float, default=2, help="seconds between kills, on average (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of all random choices (default: %(default)s)")
    parser.add_argument("--documents", type=int, default=20_000, help="documents of the corpus (default: %(default)s)")
    parser.add_argument("--nights", type=int, default=1, help="nights, with the kills spread over them (default: %(default)s)")
    parser.add_argument("--shard-rows", type=int, default=200, help="rows of a shard (default: %(default)s)")
    parser.add_argument("--layout", choices=["fused", "split"], default="split", help="layout of the run (default: %(default)s)")
    parser.add_argument("--model", choices=["simulated", "minilm"], default="simulated", help="engine (default: %(default)s)")
    parser.add_argument("--tokens-per-second", type=float, default=2000, help="of each simulated device (default: %(default)s)")
    parser.add_argument("--s3", action="store_true", help="source and output on an S3 server behind a proxy that breaks requests")
    parser.add_argument("--faults", default="503", help="faults of the proxy: 500,503,reset,truncate,stall,latency (default: %(default)s)")
    parser.add_argument("--fault-rate", type=float, default=0.05, help="share of requests that the proxy breaks (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
