"""Commands that keep an output small, and free of erased ids: gc, forget."""

from typing import Annotated, Any

import typer

from bulkembed.cli.console import out
from bulkembed.cli.options import Command, ConfigFiles, Output, StorageSettings, places
from bulkembed.errors import ConfigError

app = typer.Typer()


@app.command(cls=Command)
def gc(
    config: ConfigFiles = None,
    output: Output = None,
    keep: Annotated[int, typer.Option(min=1, metavar="<integer>", help="Number of the newest snapshots of each line to keep.")] = 3,
    tags: Annotated[
        list[str] | None,
        typer.Option(
            "--tag", metavar="NAME=NUMBER", help="Name a snapshot, and keep it for as long as it has a name. Repeatable. [default: none]"
        ),
    ] = None,
    untags: Annotated[
        list[str] | None, typer.Option("--untag", metavar="NAME", help="Remove the name of a snapshot. Repeatable. [default: none]")
    ] = None,
    grace: Annotated[
        str, typer.Option(metavar="<duration>", help="How long the files of an expired snapshot stay: longer than any run or reader takes.")
    ] = "24h",
    older_than: Annotated[str, typer.Option(metavar="<duration>", help="Age at which files go that no snapshot lists.")] = "7d",
    allow_share: Annotated[
        float, typer.Option(min=0, max=1, metavar="<number>", help="Share of the bytes of all data files that may go at once.")
    ] = 0.5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would expire, and be deleted.")] = False,
    settings: StorageSettings = None,
) -> None:
    """Free the storage of old snapshots. They expire, and what they alone list is deleted after the grace."""
    from bulkembed import api
    from bulkembed.report import upkeep_text

    at = places(config, settings, output=output)
    named = [parse_tag(text) for text in tags or ()]
    if dry_run and (tags or untags):
        raise ConfigError("--dry-run: writes nothing, so that it goes with neither --tag nor --untag")
    for name in untags or ():
        api.untag(at.output, name, at.store.settings)
    for name, number in named:
        api.tag(at.output, name, number, at.store.settings)
    rules: dict[str, Any] = {"keep": keep, "grace": grace, "older_than": older_than, "allow_share": allow_share}
    if dry_run:
        out.print(upkeep_text.gc_plan_text(api.plan_gc(at.output, storage=at.store.settings, **rules)), markup=False)
        return
    out.print(upkeep_text.gc_done_text(api.gc(at.output, storage=at.store.settings, **rules)), markup=False)


def parse_tag(text: str) -> tuple[str, int]:
    name, equals, number = text.partition("=")
    if not equals or not number.isdigit():
        raise ConfigError(f"--tag: {text!r} is not NAME=NUMBER, as in golden=12")
    return name, int(number)


@app.command(cls=Command)
def forget(
    ids: Annotated[str, typer.Option(metavar="<file>", help="Ids to erase: text with an id a line, or Parquet. A path or a URI.")],
    config: ConfigFiles = None,
    output: Output = None,
    ids_column: Annotated[
        str | None, typer.Option(metavar="<string>", help="Column of the ids, where the file is Parquet. [default: id]")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take these ids off the list, so that runs embed their rows again.")] = False,
    settings: StorageSettings = None,
) -> None:
    """Erase ids from the dataset. Their rows leave it now, and no run embeds them again. `gc` frees the snapshots that held them."""
    from bulkembed import api
    from bulkembed.report import upkeep_text

    at = places(config, settings, output=output)
    if undo:
        count, listed = api.remember(at.output, ids, ids_column=ids_column, storage=at.store.settings)
        out.print(upkeep_text.remembered_text(at.output, count, listed), markup=False)
        return
    done = api.forget(at.output, ids, ids_column=ids_column, storage=at.store.settings)
    out.print(upkeep_text.forgotten_text(at.output, done), markup=False)
