"""Small files as the tools of this field write them. Each function writes into an empty folder."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]
DOCS: list[Row] = [{"id": f"d{number}", "text": f"document number {number}"} for number in range(6)]


def lines(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv_text(rows: Sequence[Row], **options: Any) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), **options)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def zstd(data: bytes) -> bytes:
    compressed: bytes = pa.Codec("zstd").compress(data, asbytes=True)
    return compressed


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def parquet(path: Path, rows: Sequence[Row], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, **options)


def halves(rows: Sequence[Row] = DOCS) -> tuple[Sequence[Row], Sequence[Row]]:
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]


# ---------------------------------------------------------------- corpora

PAGES = [row | {"url": f"https://example.org/{row['id']}"} for row in DOCS]
NO_IDS = [{name: value for name, value in row.items() if name != "id"} for row in PAGES]


C4 = [
    {"id": f"c4-train.0000{file}-of-01024.json.gz:{row}", "url": page["url"]}
    for file in (0, 1)
    for row, page in enumerate(halves(PAGES)[file])
]


def c4(folder: Path) -> None:
    for number, part in enumerate(halves(NO_IDS)):
        rows = [row | {"timestamp": "2019-04-25T12:57:54Z"} for row in part]
        write(folder / f"c4-train.0000{number}-of-01024.json.gz", gzip.compress(lines(rows)))


DOLMA = [row | {"source": "cc", "metadata": {"length": number}} for number, row in enumerate(DOCS)]


def dolma(folder: Path) -> None:
    write(folder / "documents" / "cc_en_head-0000.json.gz", gzip.compress(lines(DOLMA)))


PILE = [{"id": f"00.jsonl.zst:{row}", "meta": {"pile_set_name": "Pile-CC"}} for row in range(6)]


def the_pile(folder: Path) -> None:
    rows = [{"text": f"document number {number}", "meta": row["meta"]} for number, row in enumerate(PILE)]
    write(folder / "00.jsonl.zst", zstd(lines(rows)))


def fineweb(folder: Path) -> None:
    rows = [row | {"dump": "CC-MAIN-2024-10", "language_score": 0.9 + number / 100, "token_count": 3} for number, row in enumerate(PAGES)]
    parquet(folder / "data" / "CC-MAIN-2024-10" / "000_00000.parquet", rows)


FINEWEB = [row | {"language_score": 0.9 + number / 100} for number, row in enumerate(PAGES)]


def hub_cache(folder: Path) -> None:
    write(folder / "blobs" / "6f1ed002ab55", lines(halves()[0]))
    write(folder / "blobs" / "5b9f22c1de01", lines(halves()[1]))
    snapshot = folder / "snapshots" / "c54f2e6e"
    snapshot.mkdir(parents=True)
    (snapshot / "a.jsonl").symlink_to("../../blobs/6f1ed002ab55")
    (snapshot / "b.jsonl").symlink_to("../../blobs/5b9f22c1de01")


def hugging_face_on_disk(folder: Path) -> None:
    table = pa.Table.from_pylist(DOCS)
    folder.mkdir(exist_ok=True)
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table)
    write(folder / "state.json", b'{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')
    write(folder / "dataset_info.json", b"{}")


# ---------------------------------------------------------------- exports of databases and warehouses


def spark_parquet(folder: Path) -> None:
    for number, part in enumerate(halves()):
        parquet(folder / f"part-0000{number}-4a1e-c000.snappy.parquet", part)
        write(folder / f".part-0000{number}-4a1e-c000.snappy.parquet.crc", b"crc")
    write(folder / "_SUCCESS", b"")


def spark_json(folder: Path) -> None:
    write(folder / "part-00000-9b2f-c000.json.gz", gzip.compress(lines(DOCS)))
    write(folder / "_SUCCESS", b"")


def hive(folder: Path) -> None:
    for day, part in zip(("2026-11-25", "2026-11-26"), halves(), strict=True):
        parquet(folder / f"dt={day}" / "000000_0", part)


HIVE = [row | {"dt": day} for day, part in zip(("2026-11-25", "2026-11-26"), halves(), strict=True) for row in part]


BIGQUERY = [{"id": str(2**53 + number)} for number in range(6)]


def bigquery_json(folder: Path) -> None:
    rows = [row | {"text": f"document number {number}"} for number, row in enumerate(BIGQUERY)]
    write(folder / "000000000000.json.gz", gzip.compress(lines(rows)))


def redshift_json(folder: Path) -> None:
    for number, part in enumerate(halves()):
        write(folder / f"000{number}_part_00", lines(part))
    write(folder / "manifest", b'{"entries": []}')


def redshift_parquet(folder: Path) -> None:
    parquet(folder / "0000_part_00.parquet", DOCS)


def snowflake(folder: Path) -> None:
    parquet(folder / "data_0_1_0.snappy.parquet", halves()[0])
    parquet(folder / "data_0_7_0.snappy.parquet", halves()[1])


def gzipped_parquet(folder: Path) -> None:
    parquet(folder / "documents.parquet.gzip", DOCS, compression="gzip")


MONGODB = [{"id": f"65f0c0ffee{number:014d}"} for number in range(6)]


def mongodb(folder: Path) -> None:
    rows = [{"_id": {"$oid": row["id"]}, "body": f"document number {number}"} for number, row in enumerate(MONGODB)]
    write(folder / "articles.json", lines(rows))


def elasticsearch(folder: Path) -> None:
    rows = [{"_index": "docs", "_id": row["id"], "_source": {"body": row["text"], "lang": "en"}} for row in DOCS]
    write(folder / "docs.json", lines(rows))


def openai_batch(folder: Path) -> None:
    request = {"method": "POST", "url": "/v1/embeddings"}
    rows = [request | {"custom_id": row["id"], "body": {"input": row["text"], "model": "m"}} for row in DOCS]
    write(folder / "batch.jsonl", lines(rows))


def postgres_csv(folder: Path) -> None:
    rows = [row | {"text": f'{row["text"]}, with "quotes"\nand a second line'} for row in DOCS]
    write(folder / "docs.csv", csv_text(rows, lineterminator="\n"))


def excel_csv(folder: Path) -> None:
    write(folder / "docs.csv", b"\xef\xbb\xbf" + csv_text(DOCS, lineterminator="\r\n"))


def semicolons(folder: Path) -> None:
    write(folder / "docs.csv", csv_text(DOCS, delimiter=";"))


def tsv(folder: Path) -> None:
    write(folder / "docs.tsv.gz", gzip.compress(csv_text(DOCS, delimiter="\t", lineterminator="\n")))


UUIDS = [{"id": f"00000000-0000-4000-8000-00000000000{number}"} for number in range(6)]


def duckdb_uuids(folder: Path) -> None:
    import duckdb

    query = "select ('00000000-0000-4000-8000-00000000000' || range)::uuid as id, 'document number ' || range as text from range(6)"
    folder.mkdir(exist_ok=True)
    duckdb.connect().execute(f"copy ({query}) to '{folder}/docs.parquet'")


def json_array(folder: Path) -> None:
    write(folder / "docs.json", json.dumps(DOCS).encode())


def polars_files(folder: Path) -> None:
    import polars

    folder.mkdir(exist_ok=True)
    polars.DataFrame(halves()[0]).write_ndjson(folder / "a.ndjson")
    polars.DataFrame(halves()[1]).write_parquet(folder / "b.parquet")


def feather(folder: Path) -> None:
    import polars

    folder.mkdir(exist_ok=True)
    polars.DataFrame(DOCS).write_ipc(folder / "docs.arrow", compression="zstd")


def delta_table(folder: Path) -> None:
    from deltalake import DeltaTable, write_deltalake

    write_deltalake(folder, pa.Table.from_pylist([*DOCS, {"id": "gone", "text": "deleted"}]))
    DeltaTable(folder).delete("id = 'gone'")


def delta_deletion_vector(folder: Path) -> None:
    from deltalake import DeltaTable, write_deltalake

    from scripts.samples.tables import mark_deleted

    write_deltalake(folder, pa.Table.from_pylist([*DOCS, {"id": "gone", "text": "deleted"}]))
    mark_deleted(folder, DeltaTable(folder).file_uris()[0].rpartition("/")[2], [len(DOCS)])


def iceberg_table(folder: Path) -> None:
    from scripts.samples.tables import FolderCatalog

    rows = pa.Table.from_pylist([*DOCS, {"id": "gone", "text": "deleted"}])
    table = FolderCatalog().create(folder, rows.schema)
    table.append(rows)
    table.delete("id = 'gone'")


def lance_table(folder: Path) -> None:
    import lancedb

    lancedb.connect(folder).create_table("docs", pa.Table.from_pylist(DOCS))


# ---------------------------------------------------------------- files of all kinds


def codecs(folder: Path) -> None:
    compress: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}
    for (suffix, squeeze), row in zip(compress.items(), DOCS, strict=False):
        write(folder / f"{row['id']}.jsonl.{suffix}", squeeze(lines([row])))


def pigz(folder: Path) -> None:
    write(folder / "docs.jsonl.gz", b"".join(gzip.compress(lines([row])) for row in DOCS))


def gzip_without_its_suffix(folder: Path) -> None:
    write(folder / "docs.jsonl", gzip.compress(lines(DOCS)))


MARKDOWN = [{"id": f"handbook/{row['id']}.md"} for row in DOCS]


def texts(folder: Path) -> None:
    for row in DOCS:
        write(folder / "handbook" / f"{row['id']}.md", row["text"].encode())


def utf16(folder: Path) -> None:
    write(folder / "docs.jsonl", lines(DOCS).decode().encode("utf-16"))


def bom_and_crlf(folder: Path) -> None:
    write(folder / "docs.jsonl", b"\xef\xbb\xbf" + lines(DOCS).replace(b"\n", b"\r\n"))


def pretty_object(folder: Path) -> None:
    write(folder / "docs.json", json.dumps(DOCS[0], indent=2).encode())


def others(folder: Path) -> None:
    write(folder / "docs.jsonl", lines(DOCS))
    for name in ("report.pdf", "page.html", "docs.avro", "docs.orc", "docs.zip", "docs.tar.gz", "README"):
        write(folder / name, b"%PDF-1.7 and the like")


def odd_names(folder: Path) -> None:
    for row, name in zip(DOCS, ("a [1].jsonl", "b*.jsonl", "c?.jsonl", "d%20.jsonl", "e #.jsonl", "ünï.jsonl"), strict=True):
        write(folder / name, lines([row]))


def not_utf8_name(folder: Path) -> None:
    write(folder / os.fsdecode(b"caf\xe9.jsonl"), lines(DOCS))
