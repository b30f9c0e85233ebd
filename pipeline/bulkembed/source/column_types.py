"""Arrow types of source columns: by their text form, without encodings, and with unknown parts filled in."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from bulkembed.errors import ConfigError

LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType, pa.ListViewType, pa.LargeListViewType)
WITHOUT_VIEW = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
JSON_TEXT = {b"bulkembed.values": b"JSON text"}  # metadata of a field: values that are no text in the source are JSON text here


def json_text_field(name: str) -> pa.Field:
    """A string column that takes any value of JSON: text unchanged, every other value as its JSON text."""
    return pa.field(name, pa.string(), metadata=JSON_TEXT)


def holds_json_text(field: pa.Field) -> bool:
    return dict(field.metadata or {}).items() >= JSON_TEXT.items()


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without encodings that some of Arrow's functions and other readers lack: dictionaries, views and narrow decimals.

    A part of a nested type that is null in every file that was read becomes text."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_nested(kind):
        return with_parts(kind, lambda part: pa.field(part.name, pa.string() if pa.types.is_null(part.type) else plain_type(part.type)))
    return WITHOUT_VIEW.get(kind, kind)


def with_parts(kind: pa.DataType, change: Callable[[pa.Field], pa.Field]) -> pa.DataType:
    """A struct or list type with each of its fields changed; any other type unchanged."""
    if pa.types.is_struct(kind):
        return pa.struct([change(part) for part in kind])
    if isinstance(kind, pa.ListType | pa.ListViewType):
        return pa.list_(change(kind.value_field))
    if isinstance(kind, pa.LargeListType | pa.LargeListViewType):
        return pa.large_list(change(kind.value_field))
    return kind


def has_null(kind: pa.DataType) -> bool:
    """Whether the type, or the type of a part of it, is unknown (null)."""
    return pa.types.is_null(kind) or any(has_null(kind.field(number).type) for number in range(kind.num_fields))


def fill_unknown(kind: pa.DataType, other: pa.DataType) -> pa.DataType:
    """`kind`, with the types of `other` in those parts where `kind` is unknown (null)."""
    if pa.types.is_null(kind):
        return other
    if pa.types.is_struct(kind) and pa.types.is_struct(other):
        known = {part.name: part.type for part in other}
        return with_parts(kind, lambda part: part.with_type(fill_unknown(part.type, known.get(part.name, part.type))))
    if isinstance(kind, LISTS) and isinstance(other, LISTS):
        return with_parts(kind, lambda part: part.with_type(fill_unknown(part.type, other.value_type)))
    return kind


def may_hold_text(kind: pa.DataType) -> bool:
    """Whether a column of this type may hold texts. A null column may: it holds no value at all."""
    kind = plain_type(kind)
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_null,
        )
    )


def parse_arrow_type(name: str, field: str) -> pa.DataType:
    """The Arrow type of this name (`int64`, `string`, `timestamp[us]`). Raises ConfigError that names the configuration field."""
    try:
        return pa.type_for_alias(name)
    except ValueError:
        raise ConfigError(f"{field}: {name!r} is not an Arrow type such as string, int64, double or bool") from None
