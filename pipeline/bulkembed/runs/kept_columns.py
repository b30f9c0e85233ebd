"""`keep_columns = ["*"]` -> the names of the columns. The first whole snapshot of a line settles them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bulkembed.config.recipe import Recipe
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.snapshots import View
from bulkembed.runs.blame import blaming_output, blaming_source
from bulkembed.source.every_column import every_column
from bulkembed.source.objects import SourceListing


def named_columns(
    cfg: RunConfig, view: View, recipe: Recipe, list_source: Callable[[Recipe], SourceListing]
) -> tuple[Recipe, SourceListing | None]:
    """The recipe with the names of its kept columns. Where all are kept and no run has settled which, also what is at the source."""
    with blaming_output(cfg.output):
        settled = settled_columns(cfg, view, recipe)
    if settled is not None:
        return settled, None
    listing = list_source(recipe)
    return with_every_column(recipe, view, listing, cfg.source_text), listing


def settled_columns(cfg: RunConfig, view: View, recipe: Recipe) -> Recipe | None:
    """The recipe with the kept columns of its newest whole snapshot; None where all columns are asked for and there is none."""
    if recipe.row_schema.keep == "named":
        return recipe
    for snapshot in view.newest_first():
        try:
            known = Recipe.from_texts(snapshot.provenance)
        except ValueError:
            continue  # another version of bulkembed made it
        names = known.row_schema.keep_columns
        if not snapshot.limited and set(recipe.row_schema.keep_columns) <= set(names) and is_alike(known, recipe, cfg):
            return replace(recipe, row_schema=replace(recipe.row_schema, keep_columns=names))
    return None


def is_alike(known: Recipe, recipe: Recipe, cfg: RunConfig) -> bool:
    """Whether two recipes are equal but for the kept columns, the int8 ranges, and an engine dtype that is left to the host."""
    other = known.in_dtype(recipe.vector_key.engine_dtype) if cfg.engine.dtype == "auto" else known
    rows = [replace(each.row_schema, keep_columns=(), int8_ranges=()) for each in (other, recipe)]
    return other.vector_key == recipe.vector_key and rows[0] == rows[1]


def with_every_column(recipe: Recipe, view: View, listing: SourceListing, source: str) -> Recipe:
    """The recipe with all columns of the source as kept ones, as far as footers and first rows show them."""
    with blaming_source():
        names = every_column(view.store.of_source(), listing.objects, recipe, source)
    return replace(recipe, row_schema=replace(recipe.row_schema, keep_columns=names))
