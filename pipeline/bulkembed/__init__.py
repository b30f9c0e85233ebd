"""bulkembed: a corpus of documents in object storage becomes a dataset of embedding vectors in object storage.

    source/     objects -> shards of rows -> documents; bad rows become rejects, each with a reason
    text/       documents -> token ids, in batches under a token budget
    embedding/  token ids -> full-width vectors, with vLLM
    vectors/    full width -> the stored forms: truncated, renormalised, cast or quantized
    dataset/    columns and vectors -> Parquet files, receipts and snapshots
    runs/       these steps, composed: the run of one configuration
    cluster/    the same steps on Ray

The other rooms lie beside this path: config/, storage/, tuning/, inspection/, report/ and cli/. docs/architecture.md has a line for
each module. `api` offers all of it to Python, and `cli` to a terminal. The names below come from `api` when they are first used:
`import bulkembed` alone imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bulkembed.api import (
        Estimate,
        Feed,
        Forgotten,
        GcPlan,
        Hit,
        Plan,
        Prices,
        Progress,
        RunConfig,
        RunStatus,
        Snapshot,
        Summary,
        Verification,
        changes,
        current,
        files,
        forget,
        gc,
        load_config,
        open_dataset,
        plan,
        plan_gc,
        publish,
        remember,
        repair,
        retry_rejects,
        rollback,
        run,
        search,
        snapshots,
        status,
        tag,
        untag,
        verify,
    )
    from bulkembed.errors import (
        AlreadyRunning,
        BulkembedError,
        ClusterError,
        ConfigError,
        EmbeddingError,
        EngineError,
        GateError,
        HeldBack,
        HostError,
        HubError,
        IncompleteError,
        InterruptedRun,
        LeaseLost,
        ModelError,
        ObjectError,
        OutputError,
        ResourceError,
        SourceError,
        StorageError,
        StoreSetupError,
    )

__version__ = "0.1.0"

__all__ = [
    "AlreadyRunning",
    "BulkembedError",
    "ClusterError",
    "ConfigError",
    "EmbeddingError",
    "EngineError",
    "Estimate",
    "Feed",
    "Forgotten",
    "GateError",
    "GcPlan",
    "HeldBack",
    "Hit",
    "HostError",
    "HubError",
    "IncompleteError",
    "InterruptedRun",
    "LeaseLost",
    "ModelError",
    "ObjectError",
    "OutputError",
    "Plan",
    "Prices",
    "Progress",
    "ResourceError",
    "RunConfig",
    "RunStatus",
    "Snapshot",
    "SourceError",
    "StorageError",
    "StoreSetupError",
    "Summary",
    "Verification",
    "changes",
    "current",
    "files",
    "forget",
    "gc",
    "load_config",
    "open_dataset",
    "plan",
    "plan_gc",
    "publish",
    "remember",
    "repair",
    "retry_rejects",
    "rollback",
    "run",
    "search",
    "snapshots",
    "status",
    "tag",
    "untag",
    "verify",
]


def __getattr__(name: str) -> Any:
    """A name of `__all__`, at its first use."""
    if name not in __all__:
        raise AttributeError(f"module 'bulkembed' has no attribute {name!r}")
    from bulkembed import api, errors

    value = getattr(api if hasattr(api, name) else errors, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
