"""Commands that look at a finished dataset: status, verify, files, search."""

from typing import TYPE_CHECKING, Annotated

import typer

from bulkembed.cli.console import err, out
from bulkembed.cli.options import Command, Elsewhere, Instruction, Original, Output, PromptName, StorageOption, storage_of
from bulkembed.errors import BulkembedError, ConfigError

if TYPE_CHECKING:
    from bulkembed.inspection.verify import Resample
    from bulkembed.storage.store import Store

app = typer.Typer()


@app.command(cls=Command)
def status(output: Output, settings: StorageOption = None) -> None:
    """Show the runs below an output: shards done, documents, rejects, tokens, and which is live."""
    from bulkembed.report import plain_text

    out.print(plain_text.status_text(storage_of(settings), output), markup=False)


@app.command(cls=Command)
def verify(
    output: Output,
    sample: Annotated[int | None, typer.Option(min=1, help="Embed N random rows again and compare; needs --source.")] = None,
    source: Original = None,
    model: Elsewhere = None,
    seed: Annotated[int, typer.Option(help="Of the choice of rows.")] = 0,
    settings: StorageOption = None,
) -> None:
    """Re-read the newest dataset: files, rows against receipts, schemas, footers, vectors."""
    from bulkembed.dataset.snapshots import newest_dataset
    from bulkembed.inspection.verify import verify as problems_of
    from bulkembed.report import plain_text

    if (sample is None) != (source is None):
        raise ConfigError("sample: --sample N and --source URI go together")
    store = storage_of(settings)
    ledger, snapshot = newest_dataset(store, output)
    problems = 0
    for problem in problems_of(store, ledger, snapshot):
        problems += 1
        err.print(problem, markup=False)
    if sample and source:
        found = embedded_again(store, output, source, sample, model, seed)
        out.print(plain_text.resample_text(found), markup=False)
        for problem in found.problems:
            problems += 1
            err.print(problem, markup=False)
    if problems:
        raise BulkembedError(f"snapshot {snapshot.number} of {output}: {problems} problems")
    out.print(f"snapshot {snapshot.number}: {len(snapshot.shards)} files, {snapshot.documents:,} documents, all as their receipts say")


@app.command(cls=Command)
def files(output: Output, settings: StorageOption = None) -> None:
    """Print the live data files, one URI a line: those of the newest snapshot, as in <output>/current.txt."""
    from bulkembed.dataset.snapshots import current_text, newest_dataset

    _, snapshot = newest_dataset(storage_of(settings), output)
    # Bytes, since neither a terminal's encoding nor its width may change a path.
    with out.written():
        typer.echo(current_text(output, snapshot), nl=False)


def embedded_again(store: "Store", output: str, source: str, rows: int, model: str | None, seed: int) -> "Resample":
    from bulkembed.dataset.snapshots import newest_dataset
    from bulkembed.embedding import in_process
    from bulkembed.inspection.search import dataset_model
    from bulkembed.inspection.verify import resample
    from bulkembed.runs.lookup import recalled_job
    from bulkembed.source.objects import source_objects

    snapshot = newest_dataset(store, output)[1]
    described = dataset_model(snapshot, model)
    job = recalled_job(store, output, source, snapshot, described)
    objects = source_objects(store, source)
    with in_process.quiet():
        return resample(job, snapshot, objects, in_process.load(described, job.cfg.max_tokens or 0, job.cfg.engine), rows, seed)


@app.command(cls=Command)
def search(
    output: Output,
    query: Annotated[str, typer.Option(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits.")] = 5,
    prompt_name: PromptName = None,
    instruction: Instruction = None,
    model: Elsewhere = None,
    engine: Annotated[str | None, typer.Option(help="vllm or simulated. [default: the dataset's own]")] = None,
    settings: StorageOption = None,
) -> None:
    """Search the newest dataset with its own model and query prompt (reads every vector)."""
    import orjson

    from bulkembed.config.sections import EngineConfig
    from bulkembed.dataset.snapshots import newest_dataset
    from bulkembed.embedding import in_process
    from bulkembed.inspection.search import dataset_model, query_prompt, query_vector
    from bulkembed.inspection.search import search as nearest
    from bulkembed.report import plain_text
    from bulkembed.runs.job import load_tokenizer

    store = storage_of(settings)
    ledger, snapshot = newest_dataset(store, output)
    made_with = snapshot.provenance
    described = dataset_model(snapshot, model)
    prompt = query_prompt(described, prompt_name, instruction)
    kind = engine or made_with["engine_kind"]
    args = orjson.loads(made_with["engine_args"]) if kind == "vllm" else {}
    chosen = EngineConfig.model_validate({"kind": kind, "dtype": made_with["engine_dtype"], "args": args})
    max_tokens = int(made_with["max_tokens"])
    with in_process.quiet():
        loaded = in_process.load(described, max_tokens, chosen)
        vector = query_vector(snapshot, load_tokenizer(described, max_tokens), loaded, query, prompt)
    out.print(plain_text.hits_text(nearest(store, ledger, snapshot, vector, k)), markup=False)
