"""Commands about the snapshots of an output: snapshots, publish, rollback."""

from typing import Annotated

import typer

from bulkembed.cli.console import out
from bulkembed.cli.options import Command, ConfigFiles, Output, StorageSettings, places
from bulkembed.errors import SourceError

app = typer.Typer()


@app.command(cls=Command)
def snapshots(config: ConfigFiles = None, output: Output = None, settings: StorageSettings = None) -> None:
    """Show the snapshots of an output, and which one is current."""
    from bulkembed import api
    from bulkembed.report import dataset_text

    at = places(config, settings, output=output)
    try:
        current = api.current(at.output, at.store.settings).number
    except SourceError:
        current = None  # no run has finished, which is no fault of an output
    out.print(dataset_text.snapshots_text(at.output, api.snapshots(at.output, at.store.settings), current), markup=False)


@app.command(cls=Command)
def publish(
    snapshot: Annotated[int, typer.Option(min=1, metavar="<integer>", help="Number of the snapshot whose line becomes current.")],
    allow_deletes: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="<integer>",
            help="Number of documents that the dataset may have fewer than now. [default: 10, or 10 % of them where that is more]",
        ),
    ] = None,
    config: ConfigFiles = None,
    output: Output = None,
    settings: StorageSettings = None,
) -> None:
    """Make another line current. Readers switch to its newest snapshot in one step. An older snapshot is rolled back to.

    A snapshot with far fewer documents than the current one is refused with exit code 3."""
    from bulkembed import api

    at = places(config, settings, output=output)
    current = api.publish(at.output, snapshot, at.store.settings, allow_deletes=allow_deletes)
    out.print(current_text(snapshot, current.number, current.documents))


@app.command(cls=Command)
def rollback(
    to: Annotated[int, typer.Option("--to", min=1, metavar="<integer>", help="Number of the snapshot to go back to.")],
    config: ConfigFiles = None,
    output: Output = None,
    settings: StorageSettings = None,
) -> None:
    """Go back to an old snapshot. A new snapshot with its files is published, and nothing is embedded."""
    from bulkembed import api

    at = places(config, settings, output=output)
    current = api.rollback(at.output, to, at.store.settings)
    out.print(current_text(to, current.number, current.documents))


def current_text(asked: int, number: int, documents: int) -> str:
    from bulkembed.report.formatting import counted

    same = "" if asked == number else f", with the files of snapshot {asked}"
    return f"current: snapshot {number}{same}: {counted(documents, 'document')}"
