"""The JSON files of a model's folder, read with types. What they do not say as they must is an error of one line."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bulkembed.errors import ModelError

POINTER = b"version https://git-lfs"  # how the small files begin that Git LFS puts in the places of large ones
POINTER_ADVICE = "a pointer of Git LFS in place of the file; fetch the file itself (git lfs pull)"
# What a missing file is needed for.
NEEDED = "a model's folder needs the files that sentence-transformers saves"
MISSING = {
    "modules.json": "it says how the model is pooled; sentence-transformers saves it with a model",
    "tokenizer.json": "save the tokenizer again with transformers (AutoTokenizer), which makes it of a tokenizer's other files",
}
ABSENT: tuple[Any, ...] = (None, "", [], {})  # values that say no more than a missing key


def read_json(path: Path) -> Any:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; {MISSING.get(path.name, NEEDED)}") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    if data.startswith(POINTER):
        raise ModelError(f"{path}: {POINTER_ADVICE}")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from None


@dataclass(frozen=True)
class Settings:
    """A JSON object of a model's files. Each method raises ModelError that names the place and the key."""

    place: str  # the file, and the key within it where the object is not the whole file
    values: dict[str, Any]

    def whole_number(self, *names: str) -> int | None:
        """The value of the first of `names` that is there: a whole number above 0."""
        name = next((name for name in names if self.values.get(name) is not None), None)
        if name is None:
            return None
        value = self.values[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 1 or not float(value).is_integer():
            raise self.error(name, "a whole number above 0")
        return int(value)

    def needed_number(self, *names: str) -> int:
        number = self.whole_number(*names)
        if number is None:
            others = f" (nor {', '.join(names[1:])})" if names[1:] else ""
            raise ModelError(f"{self.place}: has no {names[0]}{others}, without which the model cannot be described")
        return number

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            raise self.error(name, "a text")
        return value

    def token(self, name: str) -> str | None:
        """The text of a special token, which files write as a text or as an object with its `content`."""
        value = self.values.get(name)
        return Settings(f"{self.place}: {name}", value).text("content") if isinstance(value, dict) else self.text(name)

    def flag(self, name: str) -> bool | None:
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def table(self, name: str) -> Settings:
        """The object below a key; an empty one where there is none."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.error(name, "an object")
        return Settings(f"{self.place}: {name}", value or {})

    def items(self, name: str) -> list[Any]:
        value = self.values.get(name)
        if value is not None and not isinstance(value, list):
            raise self.error(name, "a list")
        return value or []

    def error(self, name: str, wanted: str) -> ModelError:
        return ModelError(f"{self.place}: {name}: expected {wanted} (got {str(self.values.get(name))[:60]!r})")

    def refuse_others(self, known: Collection[str]) -> None:
        """Raises ModelError for a key that is not `known` and has a value. It could change vectors."""
        unknown = [name for name, value in self.values.items() if name not in known and value not in ABSENT]
        if unknown:
            raise ModelError(
                f"{self.place}: {unknown[0]} is a setting that bulkembed does not know, and it could change the vectors; "
                "remove it from the file if it does not"
            )

    def require_only(self, name: str, allowed: Iterable[Any], why: str) -> None:
        """Raises ModelError where the key has a value that is not `allowed`. `why`: what such a value would mean."""
        value = self.values.get(name)
        if value not in ABSENT and value not in tuple(allowed):
            raise ModelError(f"{self.place}: {name} is {str(value)[:60]!r}: {why}, which is not supported")


def read_settings(path: Path) -> Settings:
    values = read_json(path)
    if not isinstance(values, dict):
        raise ModelError(f"{path}: expected a JSON object (got {type(values).__name__})")
    return Settings(str(path), values)


def settings_if_there(path: Path) -> Settings:
    """The settings of a file; empty ones where there is no such file."""
    return read_settings(path) if path.exists() else Settings(str(path), {})
