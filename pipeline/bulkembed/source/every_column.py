"""Which columns `keep_columns = ["*"]` stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bulkembed.config.recipe import Recipe, is_output_column
from bulkembed.errors import ConfigError
from bulkembed.source.columns import looked_at, readable_objects
from bulkembed.source.objects import SourceObject
from bulkembed.source.place_columns import hive_parts
from bulkembed.storage.store import Store


def every_column(store: Store, objects: Sequence[SourceObject], recipe: Recipe, place: str) -> tuple[str, ...]:
    """The columns of the source, and those of its paths, in order: all but the id and the text columns, and then those that are named.

    Raises ConfigError for a name that the output needs for itself."""
    rows, texts = recipe.row_schema, recipe.vector_key.text_columns
    names: dict[str, str] = {}
    for item, source in readable_objects(store, looked_at(list(objects)), recipe, place):
        for name in source.names:
            names.setdefault(name, item.uri)
    for item in objects:
        for name in hive_parts(item.relative_path):
            names.setdefault(name, item.uri)
    found = {name: uri for name, uri in names.items() if name != rows.id_column and name not in texts}
    for name, uri in found.items():
        if name == "id" or is_output_column(name):
            raise ConfigError(f"keep_columns: '*' would keep {name!r} of {uri}, which is the name of an output column; name those to keep")
    return tuple(dict.fromkeys([*found, *rows.keep_columns]))


def refuse_unknown(names: Iterable[str], recipe: Recipe, uri: str) -> None:
    """Raises ConfigError where all columns of the source are kept, and an object has one that was not there when the line began."""
    if recipe.row_schema.keep == "named":
        return
    for name in names:
        if name not in recipe.source_columns:
            raise ConfigError(
                f"keep_columns: '*' stands for the columns that were found when this line began, and {uri} has another one, {name!r}; "
                "nothing was changed; name the columns to keep, which makes a new line with the vectors that are there "
                "(`bulkembed publish` switches readers over), or leave the object out (exclude)"
            )
