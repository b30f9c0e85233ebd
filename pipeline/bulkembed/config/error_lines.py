"""A wrong configuration as one line: where, what, and what would be right. It never repeats a value of `--set`, which may be a secret."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from bulkembed.config.credentials import mask_credentials
from bulkembed.config.engine_args import OWN_ARGS
from bulkembed.config.keys import is_section, keys_of, name_in_table, without_none
from bulkembed.config.run_config import RunConfig
from bulkembed.config.settings import key_of

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

KEYS = {key.name: key for key in keys_of(RunConfig)}
TABLES = [name for name, field in RunConfig.model_fields.items() if is_section(without_none(field.annotation))]
WRONG_TYPE = re.compile(r"(int|float|bool|string|tuple|dict|model)_(type|parsing|parsing_size|from_float)|literal_error")
MIN_LIKENESS = 0.8  # from which a name is taken for another one, mistyped
SAME_START = 0.85  # below this likeness two names must begin alike: `precision` is no mistyped `revision`
SAME_TABLE = 0.1  # added to the likeness of names in one table
BOUNDS = {"greater_than_equal": ("ge", "at least"), "greater_than": ("gt", "more than")}


def first_line(error: ValidationError, settings: Sequence[str] = ()) -> str:
    """One line that names the key: `shards.max_rows: must be at least 1 (got 0)`. `settings`: of `--set`, whose values are not shown."""
    problems = error.errors()
    # A mistyped key comes first: the required one that it stands for is missing, too.
    problem = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    place = tuple(str(part) for part in problem["loc"])
    given = [setting for setting in settings if overlaps(key_of(setting), place)]
    # A table may be given as one value, whose own keys are not shown either.
    shown_parts = max((len(key_of(setting)) for setting in given), default=len(place))
    field = ".".join(place if ".".join(place) in KEYS else place[:shown_parts])
    kind = problem["type"]
    if kind == "missing":
        return f"{field}: is required (a flag --{field.replace('_', '-')}, or a key in the --config file)"
    if kind == "extra_forbidden":
        return f"{field}: unknown key{'' if field != '.'.join(place) else did_you_mean(field)}"
    message = reason(problem, given)
    if not field:  # the model validator's messages name their field themselves
        return message
    shown = "" if given or is_secret(field, kind) else shown_value(problem["input"])
    return f"{field}: {message}{shown}"


def reason(problem: ErrorDetails, given: Sequence[str]) -> str:
    """What is wrong, without the value."""
    kind = problem["type"]
    if WRONG_TYPE.fullmatch(kind):
        return expected_text([str(part) for part in problem["loc"]])
    if kind in BOUNDS:
        bound, words_before = BOUNDS[kind]
        return f"must be {words_before} {problem['ctx'][bound]:g}"
    message = problem["msg"].removeprefix("Value error, ")
    told = words(message) - OWN_ARGS.keys()  # whose names are no secrets, and the message is about one of them
    if any(words(setting.partition("=")[2]) & told for setting in given):
        return "cannot be what --set gives (which is not shown)"
    return message


def expected_text(place: Sequence[str]) -> str:
    """`expected an integer, such as 8192`, for the key at `place` or above it."""
    key = next((KEYS[name] for end in range(len(place), 0, -1) if (name := ".".join(place[:end])) in KEYS), None)
    if key is None:
        return f"expected a table, such as [{place[0]}]"
    if key.noun == "a table" and len(place) > key.name.count(".") + 1:
        return "expected a string"
    return f"expected {key.noun}" + ("" if key.choices or key.annotation is bool else f", such as {key.example_text}")


def did_you_mean(unknown: str) -> str:
    """`; did you mean keep_columns?`, or nothing where no key is like it."""
    names = nearest_keys(unknown)
    if not names:
        return ""
    table = ", above the first [table]" if "." in unknown and "." not in names[0] else ""
    return f"; did you mean {' or '.join(names)}{table}?"


def nearest_keys(unknown: str) -> list[str]:
    """The keys whose names are most like `unknown`, in whatever spelling or table; none where no name is like it."""
    spelled = unknown.lower().replace("-", "_")
    names = [*KEYS, *TABLES]
    same = [name for name in names if spelled in (name, name.replace(".", "_"))]
    if same:
        return same
    scores = {name: likeness(spelled, name) for name in names}
    best = max(scores.values())
    return [name for name, score in scores.items() if score == best >= MIN_LIKENESS]


def likeness(unknown: str, name: str) -> float:
    """How alike two names are: from 0 to 1, and a little more for names of one table. Unlike names have 0."""
    first, second = name_in_table(unknown), name_in_table(name)
    same_table = unknown.rpartition(".")[0] == name.rpartition(".")[0]
    alike = SequenceMatcher(None, first, second).ratio()
    if share_words(first, second) and (same_table or "." not in unknown):
        alike = max(alike, MIN_LIKENESS)
    elif alike < MIN_LIKENESS or (alike < SAME_START and first[:1] != second[:1]):
        return 0
    return alike + SAME_TABLE if same_table else alike


def share_words(first: str, second: str) -> bool:
    """Whether one name has all words of the other, as `model_name` has those of `model`."""
    words_of = [{word.removesuffix("s") for word in name.split("_")} for name in (first, second)]
    return words_of[0] <= words_of[1] or words_of[1] <= words_of[0]


def is_secret(field: str, kind: str) -> bool:
    return kind == "credentials" or field.startswith(("storage", "engine.env", "engine.args"))


def shown_value(value: Any) -> str:
    """Nothing for tables: they may hold anything beside the mistake."""
    parts = value if isinstance(value, list | tuple) else [value]
    return "" if any(isinstance(part, dict | list) for part in parts) else mask_credentials(f" (got {value!r})")


def overlaps(key: tuple[str, ...], place: tuple[str, ...]) -> bool:
    """Whether one is the other, or above it."""
    shorter = min(len(key), len(place))
    return key[:shorter] == place[:shorter]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))
