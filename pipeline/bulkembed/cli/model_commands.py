"""Commands that look at a model and its engine on this machine: tune, check."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bulkembed.cli.console import out
from bulkembed.cli.options import RUN_KEYS, RunCommand, takes_run_keys
from bulkembed.errors import BulkembedError, ConfigError, GateError

if TYPE_CHECKING:
    from bulkembed.config.run_config import RunConfig

app = typer.Typer()

MODEL_KEYS = ["model", "revision", "dims", "dtype", "vectors", "allow_untrained_dims", "max_tokens", "prompt", "prompt_name", "instruction"]
NOT_CHECKED = {*RUN_KEYS, "column_types", "shards", "storage"} - {*MODEL_KEYS}
# A sample is neither published nor compared with a dataset.
NOT_TUNED = {
    *("output", "keep_columns", "derive", "max_failures", "max_rejects", "max_deletes", "allow_deletes", "require", "skip_unreadable"),
    *("dedupe", "run_key", "grace_seconds", "if_running", "lease_seconds"),
}
TUNE_KEYS = [key for key in RUN_KEYS if key not in NOT_TUNED]


@app.command(name="tune", cls=RunCommand)
@partial(takes_run_keys, keys=TUNE_KEYS, unneeded=["output"], idle=NOT_TUNED)
def tune_engine(
    cfg: "RunConfig",
    seconds: Annotated[float, typer.Option("--budget", min=1, metavar="<number>", help="Seconds that measuring may take, about.")] = 600,
    documents: Annotated[int, typer.Option(min=1, metavar="<integer>", help="Number of documents of the source to measure with.")] = 2000,
    write: Annotated[
        Path | None, typer.Option(metavar="<file>", help="File for the [engine] table, to give as --config. [default: shown only]")
    ] = None,
) -> None:
    """Measure engine settings on this host, and show the fastest. It embeds a sample of the source."""
    from bulkembed.report import model_text
    from bulkembed.tuning import search, session

    if write is not None and (write.exists() or not write.parent.is_dir()):
        raise ConfigError(f"--write {write}: is there already, or its folder is not; name another file")
    trials = []
    with out.status("measuring"), session.open_host(cfg, documents) as host:
        out.print(
            f"{len(host.documents):,} documents, about {seconds:g} s; tokens/s of this host, and their ratio to the configured settings:",
            markup=False,
        )
        for trial in host.trials(seconds):
            trials.append(trial)
            out.print(model_text.trial_text(trial, trials[0].rate), markup=False)
    if not trials[0].rate:
        raise BulkembedError(f"engine: nothing could be measured: {trials[0].problem}")
    first, best = search.best_of(trials)
    out.print(model_text.tuned_text(trials, first, best, search.untried(host.axes, trials)), markup=False)
    table = search.toml(best.changes)
    if write is not None:
        write.write_text(table, encoding="utf-8")
    out.print(f"\n{table}", markup=False)


@app.command(cls=RunCommand)
@partial(takes_run_keys, keys=MODEL_KEYS, unneeded=["source", "output"], idle=NOT_CHECKED)
def check(
    cfg: "RunConfig",
    reference: Annotated[
        bool,
        typer.Option(
            "--reference",
            help="Also compare with sentence-transformers and transformers in float32 on CPU; max_tokens is then at most 512 by default.",
        ),
    ] = False,
) -> None:
    """Load a model on this machine and check its vectors. Every run makes these checks before its first shard."""
    from bulkembed.config.resolution import resolve
    from bulkembed.embedding import hardware, in_process, preflight
    from bulkembed.embedding import reference as others
    from bulkembed.embedding.model_files import describe, locate
    from bulkembed.report import model_text
    from bulkembed.runs.job import load_tokenizer

    described = describe(cfg.model, cfg.revision)
    if reference and cfg.max_tokens is None:
        cfg = cfg.model_copy(update={"max_tokens": min(described.max_tokens, others.MAX_TOKENS)})
    recipe = resolve(cfg, described, hardware.resolved_dtype(cfg.engine.dtype, cfg.ray.address))
    key = recipe.vector_key
    tokenizer = load_tokenizer(described, key.max_tokens)
    engine = cfg.engine.model_copy(update={"dtype": key.engine_dtype})
    with in_process.loaded(described, key.max_tokens, engine) as embedder:
        checks = list(preflight.run_checks(described, recipe, tokenizer, embedder))
        if reference:
            path = str(locate(cfg.model, cfg.revision, weights=True))
            for library in others.LIBRARIES:
                checks += others.compare_vectors(library, path, described, key, tokenizer, embedder)
    out.print(model_text.checks_text(described, key, embedder.version, checks), markup=False)
    failed = [check.name for check in checks if not check.passed]
    if failed:
        raise GateError(f"model: {cfg.model} fails {len(failed)} of {len(checks)} checks: {', '.join(failed)}")
