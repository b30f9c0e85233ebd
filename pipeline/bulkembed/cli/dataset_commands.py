"""Commands that look at a finished dataset or at a model: verify, files, search, check."""

from typing import TYPE_CHECKING, Annotated

import typer

from bulkembed.cli.console import err, out
from bulkembed.cli.options import (
    Command,
    Dims,
    Dtype,
    Elsewhere,
    Instruction,
    Original,
    Output,
    Prompt,
    PromptName,
    Revision,
    Settings,
    StorageOption,
    Untrained,
    Vectors,
    load_config,
    storage_of,
)
from bulkembed.errors import BulkembedError, ConfigError, GateError

if TYPE_CHECKING:
    from bulkembed.inspection.verify import Resample
    from bulkembed.storage.store import Store

app = typer.Typer()


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
    from bulkembed.dataset.ledger import dataset
    from bulkembed.inspection.verify import verify as problems_of
    from bulkembed.report import plain_text

    if (sample is None) != (source is None):
        raise ConfigError("sample: --sample N and --source URI go together")
    store = storage_of(settings)
    ledger, snapshot = dataset(store, output)
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
    from bulkembed.dataset.ledger import dataset
    from bulkembed.dataset.ledger import files as files_of

    _, snapshot = dataset(storage_of(settings), output)
    # Bytes, since neither a terminal's encoding nor its width may change a path.
    with out.written():
        typer.echo(files_of(output, snapshot), nl=False)


def embedded_again(store: "Store", output: str, source: str, rows: int, model: str | None, seed: int) -> "Resample":
    from bulkembed.dataset.ledger import dataset
    from bulkembed.embedding import in_process
    from bulkembed.inspection.search import dataset_model
    from bulkembed.inspection.verify import resample
    from bulkembed.runs.run import recalled_job
    from bulkembed.source import planning

    snapshot = dataset(store, output)[1]
    described = dataset_model(snapshot, model)
    job = recalled_job(store, output, source, snapshot, described)
    objects = planning.source_objects(store, source)
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

    from bulkembed.config.run_config import EngineConfig
    from bulkembed.dataset.ledger import dataset
    from bulkembed.embedding import in_process
    from bulkembed.inspection.search import dataset_model, query_prompt, query_vector
    from bulkembed.inspection.search import search as nearest
    from bulkembed.report import plain_text
    from bulkembed.runs.stages import tokenizer

    store = storage_of(settings)
    ledger, snapshot = dataset(store, output)
    made_with = snapshot.provenance
    described = dataset_model(snapshot, model)
    prompt = query_prompt(described, prompt_name, instruction)
    kind = engine or made_with["engine_kind"]
    args = orjson.loads(made_with["engine_args"]) if kind == "vllm" else {}
    chosen = EngineConfig.model_validate({"kind": kind, "dtype": made_with["engine_dtype"], "args": args})
    max_tokens = int(made_with["max_tokens"])
    with in_process.quiet():
        loaded = in_process.load(described, max_tokens, chosen)
        vector = query_vector(snapshot, tokenizer(described, max_tokens), loaded, query, prompt)
    out.print(plain_text.hits_text(nearest(store, ledger, snapshot, vector, k)), markup=False)


@app.command(cls=Command)
def check(
    model: Annotated[str, typer.Option(help="Hub name, or folder.")],
    revision: Revision = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Also against sentence-transformers and transformers, in float32 on the CPU.")
    ] = False,
    dims: Dims = None,
    dtype: Dtype = None,
    vectors: Vectors = None,
    allow_untrained_dims: Untrained = False,
    max_tokens: Annotated[int | None, typer.Option(help="Of a document. [default: the model's; with --reference at most 512]")] = None,
    prompt: Prompt = None,
    prompt_name: PromptName = None,
    instruction: Instruction = None,
    settings: Settings = None,
) -> None:
    """Load a model on this machine and check its vectors, as every run does before its first shard."""
    from bulkembed.embedding import in_process, preflight
    from bulkembed.embedding import reference as others
    from bulkembed.embedding.model_files import describe, locate
    from bulkembed.report import plain_text
    from bulkembed.runs import stages

    flags = {"dims": dims, "dtype": dtype, "vectors": vectors, "allow_untrained_dims": allow_untrained_dims, "max_tokens": max_tokens}
    flags |= {"prompt": prompt, "prompt_name": prompt_name, "instruction": instruction}
    cfg = load_config(None, settings, source="none", output="none", model=model, revision=revision, **flags)
    described = describe(model, revision)
    if reference and max_tokens is None:
        cfg = cfg.model_copy(update={"max_tokens": min(described.max_tokens, others.MAX_TOKENS)})
    cfg = cfg.resolve(described)
    tokenizer = stages.tokenizer(described, cfg.max_tokens or 0)
    with in_process.quiet():
        embedder = in_process.load(described, cfg.max_tokens or 0, cfg.engine)
        checks = list(preflight.examine(described, cfg, tokenizer, embedder))
        if reference:
            path = str(locate(model, revision, weights=True))
            for library in others.LIBRARIES:
                checks += others.compare(library, path, described, cfg, tokenizer, embedder)
    out.print(plain_text.checks_text(described, cfg, embedder.version, checks), markup=False)
    failed = [each.name for each in checks if not each.passed]
    if failed:
        raise GateError(f"model: {model} fails {len(failed)} of {len(checks)} checks: {', '.join(failed)}")
