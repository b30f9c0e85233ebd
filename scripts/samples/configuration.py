"""Write docs/configuration.md: how a run is configured, a commented file, and every key as its model describes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from bulkembed.cli.options import RUN_KEYS, flag_of
from bulkembed.config.error_lines import KEYS, TABLES
from bulkembed.config.keys import Identity, Key, plain
from bulkembed.config.run_config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "configuration.md"
EXAMPLE = Path(__file__).with_name("run.toml")
EFFECTS = {Identity.VECTOR_KEY: "another line: other vectors", Identity.ROW_SCHEMA: "another line: other rows", None: "same line"}

INTRODUCTION = r"""# Configuration

<!-- scripts/configuration writes this page: change scripts/samples/ or the descriptions in pipeline/bulkembed/config/, not the page. -->

A run is described by options, by TOML files, or by both:

    bulkembed run --source s3://corpus/docs --output s3://corpus/vectors \
        --model Qwen/Qwen3-Embedding-4B --text-column title --text-column body --template '{title}\n\n{body}' \
        --keep-column url --dims 1024,256 --dtype float16

- Options override the keys of `--config run.toml`. Of several `--config` files, later ones override earlier ones, key by key.
- `--set KEY=VALUE` sets a key that has no option, as in `--set engine.step_tokens=4096`.
- `status`, `verify`, `files` and `search` take the same `--config`. They use its `output` and `[storage]`.
  `verify --sample` also uses its `source` and `model`, and `search` its `model`.
- In `--template`, `--prompt` and `--instruction`, `\n` is a line break, `\t` a tab and `\\` a backslash.
- An option that takes one value is refused when it is given twice.
- Local names of `source`, `output` and `model` may be relative or begin with `~`. They are made absolute where the command starts.
- `python -m bulkembed` is the same command.

Credentials come from where fsspec's file systems look for them: `AWS_ACCESS_KEY_ID`, instance roles, `AWS_ENDPOINT_URL` for another S3.
bulkembed writes them nowhere.

Every key of `[storage]` goes to the file systems of both sides, and one that a file system does not take is refused. Where source
and output are on different protocols, or have different credentials, put the keys into `[storage.source]` and `[storage.output]`.

## A file with comments

"""

KEYS_INTRODUCTION = """## All keys

The last column says what a new value does to a finished dataset. Where it says *other vectors*, the next run embeds all
documents for a line of its own, beside the current one. Where it says *other rows*, it makes such a line from the vectors
that are there. Readers get another line after `bulkembed publish --snapshot N`. Where it says *same line*, the next run goes
on from the last snapshot. Those keys change what a run reads, how fast it is, or when it stops.
"""


def page() -> str:
    """The whole page."""
    top = [key for key in KEYS.values() if "." not in key.name]
    parts = [f"{INTRODUCTION}```toml\n{EXAMPLE.read_text(encoding='utf-8')}```\n", KEYS_INTRODUCTION, table(top)]
    for name in TABLES:
        description = RunConfig.model_fields[name].description
        parts.append(f"### `[{name}]`\n\n{description}\n")
        parts.append(table(key for key in KEYS.values() if key.name.startswith(f"{name}.")))
    return "\n".join(parts)


def table(keys: Iterable[Key]) -> str:
    head = "| key | option | type | default | what it says | a new value makes |\n| --- | --- | --- | --- | --- | --- |\n"
    return head + "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells(key))} |\n" for key in keys)


def cells(key: Key) -> Iterator[str]:
    yield f"`{key.name}`"
    yield f"`{flag_of(key)}`" if key.name in RUN_KEYS else "`--set`"
    yield type_text(key)
    yield "required" if key.default is None else key.default
    yield key.description
    yield EFFECTS[key.identity]


def type_text(key: Key) -> str:
    """A default is an example already."""
    if key.choices:
        return ", ".join(f"`{choice}`" for choice in key.choices)
    return key.noun if plain(key.example) == key.default else f"{key.noun}, such as `{key.example_text}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
