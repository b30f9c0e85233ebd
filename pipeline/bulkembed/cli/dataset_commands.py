"""Commands that look at a finished dataset: status, verify, files, changes, search."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bulkembed.cli.console import err, out
from bulkembed.cli.options import (
    Command,
    ConfigFiles,
    DatasetModel,
    Output,
    QueryInstruction,
    QueryPromptName,
    SnapshotNumber,
    Source,
    StorageSettings,
    places,
)
from bulkembed.errors import BulkembedError, ConfigError

if TYPE_CHECKING:
    from bulkembed.dataset.repair import Repair
    from bulkembed.inspection.resample import Verification

app = typer.Typer()


@app.command(cls=Command)
def status(config: ConfigFiles = None, output: Output = None, settings: StorageSettings = None) -> None:
    """Show the runs below an output, and which one is current. Each has its shards, documents, rejects and tokens."""
    from bulkembed import api
    from bulkembed.report import dataset_text

    at = places(config, settings, output=output)
    out.print(dataset_text.status_text(at.output, api.status(at.output, at.store.settings)), markup=False)


@app.command(cls=Command)
def verify(
    config: ConfigFiles = None,
    output: Output = None,
    sample: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="<integer>", help="Number of random rows to embed again and compare; needs the source. [default: none]"
        ),
    ] = None,
    source: Source = None,
    model: DatasetModel = None,
    seed: Annotated[int | None, typer.Option(metavar="<integer>", help="Seed of the choice of rows, with --sample. [default: 0]")] = None,
    snapshot: SnapshotNumber = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Take back what is damaged or lost, so that the next run makes it again.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --repair: only show what it would do.")] = False,
    settings: StorageSettings = None,
) -> None:
    """Read the current dataset again and check it.

    It compares rows and bytes with receipts and the manifest, and checks schemas, footers, vectors, key files and current.txt."""
    from bulkembed import api

    refuse_beside_repair(repair, dry_run, sample, snapshot)
    at = places(config, settings, output=output, source=source, model=model)
    for name, given in (("source", source), ("model", model), ("seed", seed)):
        if sample is None and given not in (None, []):
            raise ConfigError(f"{name}: is read only together with --sample N")
    if sample is not None and not at.sources:
        raise ConfigError("sample: needs the source (a flag --source, or a key in the --config file)")
    if repair and not dry_run:
        end_repair(api.repair(at.output, storage=at.store.settings, on_problem=show_problem), at.output)
        return
    verification = api.verify(
        at.output,
        storage=at.store.settings,
        sample=sample,
        source=at.sources if sample is not None else None,
        model=at.model,
        seed=seed or 0,
        on_problem=show_problem,
        snapshot=snapshot,
    )
    if dry_run:
        show_repair(verification.repair, "to remove", "to write")
    end_verification(verification, at.output)


def refuse_beside_repair(repair: bool, dry_run: bool, sample: int | None, snapshot: int | None) -> None:
    """Raises ConfigError for options that a repair, or a verification without one, would take and not heed."""
    if repair and sample is not None:
        raise ConfigError("--repair: goes without --sample, whose rows it cannot make again; verify with it afterwards")
    if repair and snapshot is not None:
        raise ConfigError("--repair: goes without --snapshot; a run makes only the newest snapshot of a line again")
    if dry_run and not repair:
        raise ConfigError("--dry-run: goes with --repair; verify itself writes nothing")


def show_problem(problem: str) -> None:
    err.print(problem, markup=False)


def show_repair(repair: "Repair", removed: str, written: str) -> None:
    from bulkembed.report.dataset_text import repair_text

    if repair.removed or repair.receipts:
        out.print(repair_text(repair, removed, written), markup=False)


def end_verification(done: "Verification", output: str) -> None:
    """Shows what was found. Raises BulkembedError where something is wrong."""
    from bulkembed.report.dataset_text import leftovers_text, resample_text, whole_text
    from bulkembed.report.formatting import counted

    found = done.snapshot
    if done.resample is not None:
        out.print(resample_text(done.resample), markup=False)
    if done.leftovers.objects:
        out.print(leftovers_text(done.leftovers), markup=False)
    if done.problems:
        mended = len(done.problems) - done.hopeless
        advice = f"; `bulkembed verify --repair` and then the next run mend {mended} of them" if mended else ""
        raise BulkembedError(f"snapshot {found.number} of {output}: {counted(len(done.problems), 'problem')}{advice}")
    out.print(whole_text(found))


def end_repair(done: "Verification", output: str) -> None:
    """Shows what was done. Raises BulkembedError where a problem has no remedy."""
    from bulkembed.report.formatting import counted

    number, mended = done.snapshot.number, len(done.problems) - done.hopeless
    show_repair(done.repair, "removed", "written")
    if done.repair.needs_run:
        out.print(f"snapshot {number}: run the job again, which makes what is missing")
    elif mended:
        out.print(f"snapshot {number}: {counted(mended, 'problem')} mended")
    if done.hopeless:
        raise BulkembedError(f"snapshot {number} of {output}: {done.hopeless} of {len(done.problems)} problems have no remedy here")
    if not done.problems:
        out.print(f"snapshot {number}: nothing to repair")


@app.command(cls=Command)
def files(config: ConfigFiles = None, output: Output = None, snapshot: SnapshotNumber = None, settings: StorageSettings = None) -> None:
    """Print the live data files, one URI a line. <output>/current.txt has those of the current snapshot."""
    from bulkembed import api

    at = places(config, settings, output=output)
    uris = api.files(at.output, at.store.settings, snapshot)
    # Bytes are printed, because neither a terminal's encoding nor its width may change a path.
    with out.written():
        typer.echo("".join(f"{uri}\n" for uri in uris).encode(), nl=False)


@app.command(cls=Command)
def changes(
    from_snapshot: Annotated[
        int, typer.Option("--from", min=0, metavar="<integer>", help="Snapshot that the reader has; 0 for a reader that has nothing.")
    ],
    feed: Annotated[str, typer.Option(metavar="<string>", help="Folder to write the changes to.")],
    to_snapshot: Annotated[
        int | None, typer.Option("--to", min=1, metavar="<integer>", help="Snapshot that the reader gets. [default: the current one]")
    ] = None,
    config: ConfigFiles = None,
    output: Output = None,
    vectors: Annotated[
        Literal["stored", "float32"], typer.Option(help="Vectors as they are stored, or variable lists of float32.")
    ] = "stored",
    key: Annotated[
        Literal["none", "uuid"],
        typer.Option(help="Adds a column `key`: a UUID of the id, and of the chunk's index in a dataset of chunks."),
    ] = "none",
    settings: StorageSettings = None,
) -> None:
    """Write the changes from one snapshot to another.

    They are upserts, deletes and, last, _feed.json. A reader applies the upserts, then the deletes. docs/feed.md has the contract and
    a loader."""
    from bulkembed import api
    from bulkembed.report import dataset_text

    at = places(config, settings, output=output)
    told = api.changes(at.output, feed, from_snapshot, to_snapshot, vectors=vectors, key=key, storage=at.store.settings)
    out.print(dataset_text.feed_text(feed, told), markup=False)


@app.command(cls=Command)
def search(
    query: Annotated[str, typer.Option(metavar="<string>", help="Text to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, metavar="<integer>", help="Number of hits.")] = 5,
    config: ConfigFiles = None,
    output: Output = None,
    prompt_name: QueryPromptName = None,
    instruction: QueryInstruction = None,
    model: DatasetModel = None,
    engine: Annotated[
        Literal["vllm", "simulated"] | None, typer.Option(help="Engine that embeds the query. [default: the dataset's own]")
    ] = None,
    snapshot: SnapshotNumber = None,
    settings: StorageSettings = None,
) -> None:
    """Search the current dataset with its own model. It reads every vector, and puts the model's query prompt before the query."""
    from bulkembed import api
    from bulkembed.report import dataset_text

    at = places(config, settings, output=output, model=model)
    hits = api.search(
        at.output,
        query,
        k,
        storage=at.store.settings,
        prompt_name=prompt_name,
        instruction=instruction,
        model=at.model,
        engine=engine,
        snapshot=snapshot,
    )
    out.print(dataset_text.hits_text(hits), markup=False)
