"""The keys of a configuration as people read them: name, type, default, description. Options, docs and error lines show them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


class Identity(Enum):
    """Marks a key that is part of a dataset's identity: another value makes another dataset."""

    VECTOR_KEY = "vectors"
    ROW_SCHEMA = "rows"


VECTOR_KEY, ROW_SCHEMA = Identity.VECTOR_KEY, Identity.ROW_SCHEMA


@dataclass(frozen=True)
class DefaultText:
    """Marks a key whose default value does not say what a run does without it."""

    text: str


@dataclass(frozen=True)
class Key:
    """One key of a configuration."""

    name: str  # with its table: engine.step_tokens
    annotation: Any  # without None
    default: str | None  # in words; None: the key is required
    description: str
    example: Any
    identity: Identity | None

    @property
    def noun(self) -> str:
        """Its type in words: `an integer`."""
        return noun(self.annotation)

    @property
    def choices(self) -> tuple[str, ...]:
        return get_args(self.annotation) if get_origin(self.annotation) is Literal else ()

    @property
    def repeats(self) -> bool:
        """Whether an option gives its values one by one."""
        return any(get_origin(kind) is tuple and get_args(kind)[0] is str for kind in kinds_of(self.annotation))

    @property
    def example_text(self) -> str:
        return toml(self.example)


def keys_of(model: type[BaseModel], table: str = "") -> Iterator[Key]:
    """Every key below `model` in the order of its fields, those of its tables after the table's place."""
    for name, field in model.model_fields.items():
        annotation = without_none(field.annotation)
        if is_section(annotation):
            yield from keys_of(annotation, f"{table}{name}.")
        else:
            yield Key(f"{table}{name}", annotation, default_text(field), field.description or "", example_of(field), identity_of(field))


def name_in_table(name: str) -> str:
    """`step_tokens` of `engine.step_tokens`."""
    return name.rpartition(".")[2]


def is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def without_none(annotation: Any) -> Any:
    """`int` of `int | None`."""
    kinds = get_args(annotation)
    return next(kind for kind in kinds if kind is not NoneType) if NoneType in kinds else annotation


def kinds_of(annotation: Any) -> tuple[Any, ...]:
    """`str` and `tuple[str, ...]` of `str | tuple[str, ...]`; any other annotation alone."""
    return get_args(annotation) if get_origin(annotation) is UnionType else (annotation,)


def default_text(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    text = next((marker.text for marker in field.metadata if isinstance(marker, DefaultText)), None)
    return plain(field.get_default(call_default_factory=True)) if text is None else text


def example_of(field: FieldInfo) -> Any:
    return field.examples[0] if field.examples else field.get_default(call_default_factory=True)


def identity_of(field: FieldInfo) -> Identity | None:
    return next((marker for marker in field.metadata if isinstance(marker, Identity)), None)


def noun(annotation: Any) -> str:
    """A type in words."""
    if len(kinds := kinds_of(annotation)) > 1:
        return " or ".join(map(noun, kinds))
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(get_args(annotation))}"
    if get_origin(annotation) is tuple:
        return {str: "a list of strings", int: "a list of integers"}.get(get_args(annotation)[0], "a list of DIM:DTYPE")
    if get_origin(annotation) is dict or is_section(annotation):
        return "a table"
    return {int: "an integer", float: "a number", bool: "true or false", str: "a string"}[annotation]


def plain(value: Any) -> str:
    """A default as a flag would take it."""
    if isinstance(value, tuple):
        return ", ".join(map(plain, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def toml(value: Any) -> str:
    """A value as a TOML file holds it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') + '"'
        case list() | tuple():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return f"{{ {', '.join(f'{name} = {toml(item)}' for name, item in value.items())} }}"
    return str(value)
