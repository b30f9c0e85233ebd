"""What users have, with the keys that a run over it takes, and what it must make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.samples import exports
from scripts.samples.exports import DOCS, Row


@dataclass(frozen=True)
class Export:
    """What a user has. `build` writes it into an empty folder."""

    what: str
    build: Callable[[Path], None]
    keys: Mapping[str, Any] = field(default_factory=dict)  # of the run, as a TOML file has them
    rows: Sequence[Row] | None = ()  # ids and kept columns that the dataset must have, in any order; None where it is refused
    rejects: int = 0


def ids(rows: Sequence[Row], *kept: str) -> list[Row]:
    return [{name: row[name] for name in ("id", *kept)} for row in rows]


EXPORTS = {
    "Corpora": [
        Export("C4: `c4-train.00000-of-01024.json.gz`, no ids", exports.c4, {"id_column": "row", "keep_columns": ["url"]}, exports.C4),
        Export(
            "The Pile, SlimPajama: `.jsonl.zst`, no ids", exports.the_pile, {"id_column": "row", "keep_columns": ["meta"]}, exports.PILE
        ),
        Export("Dolma: `.json.gz`", exports.dolma, {"keep_columns": ["source", "metadata"]}, ids(exports.DOLMA, "source", "metadata")),
        Export(
            "FineWeb: Parquet in folders",
            exports.fineweb,
            {"keep_columns": ["url", "language_score"]},
            ids(exports.FINEWEB, "url", "language_score"),
        ),
        Export("a cache of the Hugging Face hub: symbolic links", exports.hub_cache, {"source": "snapshots"}, ids(DOCS)),
        Export("Hugging Face `save_to_disk`: Arrow streams", exports.hugging_face_on_disk, {"exclude": ["*.json"]}, ids(DOCS)),
        Export("a folder of Markdown files", exports.texts, {"format": "text"}, exports.MARKDOWN),
    ],
    "Exports": [
        Export("Spark: `part-*.snappy.parquet`, `_SUCCESS`, `.crc`", exports.spark_parquet, {"require": ["_SUCCESS"]}, ids(DOCS)),
        Export("Spark: `part-*.json.gz`", exports.spark_json, {}, ids(DOCS)),
        Export("Hive: `dt=2026-11-26/000000_0`, Parquet", exports.hive, {"keep_columns": ["dt"]}, ids(exports.HIVE, "dt")),
        Export(
            "BigQuery: `000000000000.json.gz`, integers as text",
            exports.bigquery_json,
            {},
            exports.BIGQUERY,
        ),
        Export("Redshift: `0000_part_00`, JSON lines", exports.redshift_json, {"format": "jsonl", "exclude": ["manifest"]}, ids(DOCS)),
        Export("Redshift: `0000_part_00.parquet`", exports.redshift_parquet, {}, ids(DOCS)),
        Export("Snowflake: `data_0_1_0.snappy.parquet`", exports.snowflake, {}, ids(DOCS)),
        Export("pandas: `documents.parquet.gzip`", exports.gzipped_parquet, {}, ids(DOCS)),
        Export("Postgres: `COPY ... TO ... CSV HEADER`, with line breaks in texts", exports.postgres_csv, {}, ids(DOCS)),
        Export("Excel: CSV with a byte order mark and CRLF", exports.excel_csv, {}, ids(DOCS)),
        Export("Excel where commas are decimal marks: CSV with semicolons", exports.semicolons, {}, None),
        Export("TSV, gzipped", exports.tsv, {}, ids(DOCS)),
        Export("DuckDB: Parquet with UUIDs", exports.duckdb_uuids, {}, exports.UUIDS),
        Export("Polars: NDJSON and Parquet beside each other", exports.polars_files, {}, ids(DOCS)),
        Export("Polars: Arrow IPC, compressed", exports.feather, {}, ids(DOCS)),
        Export(
            "MongoDB: `mongoexport`",
            exports.mongodb,
            {"id_column": "_id.$oid", "text_columns": ["body"]},
            exports.MONGODB,
        ),
        Export(
            "Elasticsearch: a dump of hits",
            exports.elasticsearch,
            {"id_column": "_id", "text_columns": ["_source.body"]},
            ids(DOCS),
        ),
        Export("OpenAI: a batch file", exports.openai_batch, {"id_column": "custom_id", "text_columns": ["body.input"]}, ids(DOCS)),
    ],
    "Tables": [
        Export("Delta, with a deleted row", exports.delta_table, {}, ids(DOCS)),
        Export("Delta, with a deletion vector", exports.delta_deletion_vector, {}, ids(DOCS)),
        Export("Iceberg, with a deleted row", exports.iceberg_table, {}, ids(DOCS)),
        Export("Lance", exports.lance_table, {"source": "docs.lance"}, None),
    ],
    "Files": [
        Export("`.gz`, `.bz2`, `.xz` and `.zst` beside each other", exports.codecs, {}, ids(DOCS[:4])),
        Export("several gzip members in a file, as `pigz` and `cat` make", exports.pigz, {}, ids(DOCS)),
        Export("a gzip file without its suffix", exports.gzip_without_its_suffix, {}, ids(DOCS)),
        Export("JSON lines with a byte order mark and CRLF", exports.bom_and_crlf, {}, ids(DOCS)),
        Export("JSON lines in UTF-16", exports.utf16, {}, None),
        Export("a JSON array, as DuckDB's `ARRAY true` writes", exports.json_array, {}, None),
        Export("one JSON object over several lines", exports.pretty_object, {}, None),
        Export("other files beside documents", exports.others, {}, ids(DOCS)),
        Export("names with `[`, `*`, `?`, `%`, `#` and umlauts", exports.odd_names, {}, ids(DOCS)),
        Export("a name that is not UTF-8", exports.not_utf8_name, {}, None),
    ],
}
