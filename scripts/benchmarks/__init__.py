"""Benchmarks that anyone can run: `scripts/bench ROW [--json]`. Ratios within one run are meant to be read; figures depend on the machine.

machine    the host and the versions that figures are of
ratio      the job's steady tokens/s over those of the best plain script, and where its wall went
peers      the job beside sentence-transformers, its OpenVINO backend, Ray Data and Ray Data LLM
limit      what a model's matrix products alone allow on this host
overhead   the embedder over bare engine calls, with a model of one layer
host       what a host feeds and drains, with a simulated device
devices    1 to 32 simulated devices: the share of their time that they are busy
tail       one shard of 50 times the tokens, 16 simulated devices: the wall over the ideal
scale      what a shard costs the driver; planning many objects; resuming when nearly all is done
memory     peak memory at 1x and 10x the corpus, and which processes hold it
start      seconds of commands, and from the command to the first batch
reads      documents from an S3 server over loopback beside bare reads of the same bytes
formats    Parquet encodings and codecs of vector columns: bytes, writing, reading
recall     recall@k of every output form against float32
tune       what `bulkembed tune` picks beside the best of an exhaustive grid
ablations  one setting changed at a time
"""
