"""Hub models -> folders on this machine. The only user of huggingface_hub, which takes half a second to import.

The hub's own library keeps one cache a node, and locks each file of it. Actors of one node that need a file at once fetch it once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from bulkembed import process_state
from bulkembed.embedding.model_identity import CODE_FILES, READ_NAMES, WEIGHT_FILES
from bulkembed.embedding.model_modules import DENSE_WEIGHTS, read_modules
from bulkembed.errors import BulkembedError, HubError, ModelError

DESCRIPTION_FILES = (*READ_NAMES, "*/config.json", *CODE_FILES)


@cache
def fetch(name: str, revision: str | None, weights: bool) -> Path:
    """The folder of a hub model in this node's cache. Missing files are fetched from the hub first.

    `weights`: whether the weights are needed, or only the files that describe the model.
    Raises ModelError where another attempt cannot help, HubError where it may."""
    folder = download(name, revision, [*DESCRIPTION_FILES, *(WEIGHT_FILES if weights else ())])
    layers = [f"{module.folder}/{DENSE_WEIGHTS}" for module in read_modules(folder) if module.kind == "Dense"]
    return download(name, folder.name, layers) if layers else folder


def download(name: str, revision: str | None, patterns: list[str]) -> Path:
    import huggingface_hub

    try:
        with quiet_hub():
            return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # of the hub, of its HTTP client, of the network, of the disk
        raise explain(name, revision, error) from error


@cache
def listed_weights(name: str, commit: str) -> dict[str, str | None]:
    """The weight files of a commit, and the SHA-256 that the hub knows of each; None where it is kept in git itself."""
    import huggingface_hub

    try:
        with quiet_hub():
            files = huggingface_hub.HfApi().model_info(name, revision=commit, files_metadata=True).siblings or []
    except Exception as error:
        raise explain(name, commit, error) from error
    weights = [file for file in files if file.rfilename.endswith(".safetensors") and "/" not in file.rfilename]
    return {file.rfilename: file.lfs.sha256 if file.lfs is not None else None for file in weights}


def explain(name: str, revision: str | None, error: Exception) -> BulkembedError:
    """The error of the hub's library as an error of one line that says what to do."""
    from huggingface_hub import constants, errors

    token = "set HF_TOKEN to a token of an account that may read it"  # noqa: S105
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:200]
    match error:
        case errors.GatedRepoError():
            final = f"model: {name} is gated on the hub: accept its conditions on its page there, and {token}"
        case errors.RepositoryNotFoundError():
            final = f"model: {name} is not on the hub, or private: check the name; for a private model, {token}"
        case errors.RevisionNotFoundError():
            final = f"revision: {name} has no revision {revision!r} on the hub"
        case errors.HFValidationError():
            final = f"model: {name} is neither a folder here nor a name that the hub allows"
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            final = f"model: the hub refuses {name} (HTTP {error.response.status_code}): {token}"
        case _ if not constants.ENDPOINT.startswith(("http://", "https://")):
            final = f"model: HF_ENDPOINT is not the address of a hub: {constants.ENDPOINT!r} does not begin with https://"
        case OSError(errno=int()) if not isinstance(error, (errors.HfHubHTTPError, ConnectionError, TimeoutError)):  # of the disk
            final = f"model: {name} could not be kept in this node's hub cache, {constants.HF_HOME}: {reason}; make room, or set HF_HOME"
        case _ if is_offline():
            final = f"model: {name} is not whole in the hub cache of this node, and HF_HUB_OFFLINE forbids fetching it"
        case _:
            return HubError(f"model: {name} could not be fetched from the hub: {type(error).__name__}: {reason}; run again when it answers")
    return ModelError(final)


def is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@contextmanager
def same_access() -> Iterator[None]:
    """Restores this process's access to the hub at the end of the context. Within it, `close` may take the access away."""
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    with process_state.same_environment(lambda name: name == "HF_HUB_OFFLINE"):
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = offline


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Suppresses the library's progress bars and its log lines about repeated requests. A request that fails in the end raises an error."""
    with process_state.quiet_imports():
        from huggingface_hub.utils import (  # type: ignore[attr-defined]
            are_progress_bars_disabled,
            disable_progress_bars,
            enable_progress_bars,
            logging,
        )

    bars, level = not are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            enable_progress_bars()


def close() -> None:
    """Ends the access of this process, and of those it starts, to the hub. A loaded engine needs nothing from there."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if "huggingface_hub" in sys.modules:
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True
