"""Arrow types of source columns: by their text form, and without encodings."""

from __future__ import annotations

import re
from collections.abc import Callable

import pyarrow as pa

from bulkembed.errors import ConfigError
from bulkembed.value_encoding import WRITTEN

UNKNOWN = {b"bulkembed.type": b"unknown"}  # metadata of a field: no value of it has been seen
WITHOUT_VIEW = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
DECIMAL = re.compile(r"decimal(128|256)\((\d+), ?(-?\d+)\)")
TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns), tz=([^\]]+)\]")
JSON_TEXT = {b"bulkembed.values": b"JSON text"}  # metadata of a field: values that are no text in the source are JSON text here


def json_text_field(name: str) -> pa.Field:
    """A string column that takes any value of JSON: text unchanged, every other value as its JSON text."""
    return pa.field(name, pa.string(), metadata=JSON_TEXT)


def unknown_field(name: str) -> pa.Field:
    """A field for a column without any value so far. It takes any value, as `json_text_field` does."""
    return pa.field(name, pa.string(), metadata=JSON_TEXT | UNKNOWN)


def without_unknown_fields(carried: pa.Schema) -> pa.Schema:
    """The schema in which a column without any value so far is JSON text for good."""
    return pa.schema([field.with_metadata(JSON_TEXT) if is_unknown(field) else field for field in carried])


def is_unknown(field: pa.Field) -> bool:
    return bool(dict(field.metadata or {}).items() >= UNKNOWN.items())


def holds_json_text(field: pa.Field) -> bool:
    return bool(dict(field.metadata or {}).items() >= JSON_TEXT.items())


def extension_of(field: pa.Field) -> dict[bytes, bytes]:
    """What a field says of an extension type that Arrow does not know here, such as `geoarrow.wkb`: its name and its own metadata."""
    return {key: value for key, value in (field.metadata or {}).items() if key.startswith(b"ARROW:extension:")}


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without encodings that some of Arrow's functions and other readers lack: dictionaries, runs, views, narrow decimals."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    return with_parts(kind, plain_type) if pa.types.is_nested(kind) else WITHOUT_VIEW.get(kind, kind)


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type that Parquet has for these values: it has no seconds, and one type of dates. Fewer values fit into it."""
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    return with_parts(kind, stored_type) if pa.types.is_nested(kind) else WRITTEN.get(kind, kind)


def with_parts(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """A nested type with the type of each part changed; any other type unchanged. All parts may be null, but for keys of maps."""
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(part.name, change(part.type)) for part in kind])
    if pa.types.is_map(kind):
        key = change(kind.key_type)
        return kind if pa.types.is_null(key) else pa.map_(key, change(kind.item_type))  # Arrow makes no type with keys of null
    if isinstance(kind, pa.FixedSizeListType):
        return pa.list_(change(kind.value_type), kind.list_size)
    if isinstance(kind, pa.ListType | pa.ListViewType):
        return pa.list_(change(kind.value_type))
    if isinstance(kind, pa.LargeListType | pa.LargeListViewType):
        return pa.large_list(change(kind.value_type))
    return kind


def without_unknown(kind: pa.DataType) -> pa.DataType:
    """The type with text in place of each part whose type is unknown (null)."""
    return pa.string() if pa.types.is_null(kind) else with_parts(kind, without_unknown)


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def may_hold_text(kind: pa.DataType) -> bool:
    """Whether a column of this type may hold texts. A null column may: it holds no value at all."""
    kind = plain_type(kind)
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    return is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_null(kind)


def parse_arrow_type(name: str, field: str) -> pa.DataType:
    """The Arrow type of this text, as Arrow writes it (`int64`, `timestamp[us, tz=UTC]`). Raises ConfigError that names the field."""
    try:
        if match := DECIMAL.fullmatch(name):
            return (pa.decimal256 if match[1] == "256" else pa.decimal128)(int(match[2]), int(match[3]))
        if match := TIMESTAMP.fullmatch(name):
            return pa.timestamp(match[1], match[2])
        return pa.type_for_alias(name)
    except ValueError:
        raise ConfigError(f"{field}: {name!r} is not an Arrow type such as string, int64, double, bool or decimal128(20, 0)") from None


def has_name(kind: pa.DataType) -> bool:
    """Whether `column_types` can name the type."""
    try:
        return bool(parse_arrow_type(str(kind), "").equals(kind))
    except ConfigError:
        return False
