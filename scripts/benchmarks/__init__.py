"""Benchmarks that anyone can run: `scripts/bench ROW [--json]`; `scripts/bench --help` lists the rows, each in a module of its name.

material, simulated    the models and corpora that rows share
measuring, job, engine  run a command, `bulkembed run` or an engine, and measure it
plain                  the best plain script, which `ratio` compares the job with
usage                  CPU and memory of the processes of a command
nightly_peers, night_requests  other systems that `nightly` is beside; what a night asks of the store
peer_variants, peer_scripts/, peer_environments  other ways to do the job, which `peers` compares it with
"""
