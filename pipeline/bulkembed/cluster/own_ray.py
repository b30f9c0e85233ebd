"""What a Ray that a run starts for itself needs of this host: a token, a folder for its sockets, and no dashboard."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bulkembed.errors import ClusterError

log = logging.getLogger(__name__)

# A socket's path has at most 107 bytes, and Ray's longest is <folder>/ray/session_<date>_<time>_<microseconds>_<pid>/sockets/plasma_store.
MAX_FOLDER_BYTES = 107 - len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
# Set to 0, every server of this Ray binds to loopback alone. (The name is historical: it works on Linux.)
LOOPBACK_SETTING = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
TOKEN_NAMES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
DASHBOARD_PACKAGES = "ray.dashboard.optional_deps"


# The environment of a local Ray. Workers are niced by default, so that every helper process preempts the engine;
# the rest are reporters that wake up all the time on behalf of a dashboard that is not there.
LOCAL_RAY = {
    LOOPBACK_SETTING: "0",
    "RAY_worker_niceness": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def set_environment(environment: MutableMapping[str, str], inherited: Mapping[str, str]) -> None:
    """Sets what a Ray of a run's own reads as it starts, and `inherited`, which all its processes get."""
    environment.update({name: value for name, value in LOCAL_RAY.items() if name not in environment} | dict(inherited))
    give_token(environment)


def is_setting(name: str) -> bool:
    """Whether Ray sets the environment variable of this name in the process that connects it, or `set_environment` does for Ray."""
    return name.startswith("RAY_") or name == "PYTHONBREAKPOINT"


def forget_settings() -> None:
    """Has Ray look at the environment anew: it would take the next cluster for one that wants the token of the last."""
    if "ray" in sys.modules:
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


def give_token(environment: MutableMapping[str, str]) -> None:
    """Sets a token that no other process knows, where the user has set none: Ray would write one into the home folder, and not every
    user has one that can be written."""
    if not any(environment.get(name) for name in TOKEN_NAMES):
        environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

        AuthenticationTokenLoader.instance().reset_cache()  # it may have looked already, for a cluster that could not be joined


def temporary_folder(environment: Mapping[str, str]) -> Path:
    """Where Ray's sockets and logs go: RAY_TMPDIR; where that is not set TMPDIR, or a usual folder if TMPDIR does not do.

    Raises ClusterError where none does."""
    named = environment.get("RAY_TMPDIR")
    usual = (environment.get("TMPDIR"), *FOLDERS)
    problems = []
    for folder in [named] if named else [folder for folder in usual if folder]:
        problem = unfit(Path(folder))
        if problem is None:
            return Path(folder, "ray")
        problems.append(f"{folder} {problem}")
        log.info("Ray's sockets cannot lie in %s", problems[-1])
    advice = "set RAY_TMPDIR to a folder of a short name that can be written"
    raise ClusterError(f"ray: no folder for its sockets and logs: {'; '.join(problems)}; {advice}")


def unfit(folder: Path) -> str | None:
    """Why Ray's files cannot lie in `folder`, or None."""
    if not folder.is_absolute():
        return "is relative"
    if len(os.fsencode(folder)) > MAX_FOLDER_BYTES:
        return f"is longer than {MAX_FOLDER_BYTES} bytes"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        used = folder / "ray"  # which another user may have made
        with TemporaryDirectory(dir=used if os.access(used, os.F_OK) else folder):
            return None
    except OSError as error:
        return f"cannot be written ({error.strerror})"


@contextmanager
def without_dashboard() -> Iterator[None]:
    """Has Ray start as it does without the packages of `ray[default]`. With them every node's agent listens for jobs, also where
    `include_dashboard` is off, and two runs on a host want the same port for it."""
    before = sys.modules.get(DASHBOARD_PACKAGES)
    sys.modules[DASHBOARD_PACKAGES] = None  # type: ignore[assignment]  # importing it fails, as where the packages are missing
    try:
        yield
    finally:
        del sys.modules[DASHBOARD_PACKAGES]
        if before is not None:
            sys.modules[DASHBOARD_PACKAGES] = before


@contextmanager
def on_loopback() -> Iterator[None]:
    """Has Ray heed LOOPBACK_SETTING. Ray reads it as it is imported, and a program may have imported Ray before."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = ray_constants.env_bool(LOOPBACK_SETTING, True)
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
