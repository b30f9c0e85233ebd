"""What the Ray that a run starts needs on this host: settings, a token, a folder for its sockets, threads, loopback, and no dashboard."""

from __future__ import annotations

import _thread
import logging
import os
import resource
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from bulkembed.errors import ClusterError

log = logging.getLogger(__name__)

# Ray makes its folders writable by everybody. So they lie in one that nobody else can enter. Its name is known to all tenants of the
# host, who may have made a folder or a link of this name.
PRIVATE_FOLDER = f"ray-{os.getuid()}"
# A socket's path has at most 107 bytes. Ray's longest is <its folder>/session_<date>_<time>_<microseconds>_<pid>/sockets/plasma_store.
MAX_FOLDER_BYTES = 107 - len(f"/{PRIVATE_FOLDER}/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
MIN_FREE_BYTES = 16 << 20  # in that folder, for logs
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
NO_ADDRESSES = "lift `ulimit -v`, since Ray reserves far more addresses than it uses"
MIN_THREADS = 150  # a Ray on two cores has some 170
# Set to 0, every server of this Ray binds to loopback alone. (The name is historical: it works on Linux.)
LOOPBACK_SETTING = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
TOKEN_NAMES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
DASHBOARD_PACKAGES = "ray.dashboard.optional_deps"


# The environment of a local Ray. By default Ray lowers the priority of workers, so that every helper process preempts the engine.
# The other settings turn off reporters, which wake up often for a dashboard that does not run.
LOCAL_RAY = {
    LOOPBACK_SETTING: "0",
    "RAY_worker_niceness": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def set_environment(environment: MutableMapping[str, str], inherited: Mapping[str, str]) -> None:
    """Sets the variables that this Ray reads when it starts, and `inherited`, which all its processes get."""
    environment.update({name: value for name, value in LOCAL_RAY.items() if name not in environment} | dict(inherited))
    give_token(environment)


def is_setting(name: str) -> bool:
    """Whether Ray sets the environment variable of this name in the process that connects it, or `set_environment` does for Ray."""
    return name.startswith("RAY_") or name == "PYTHONBREAKPOINT"


def forget_settings() -> None:
    """Makes Ray read the environment again. It would otherwise expect that the next cluster wants the token of the last one."""
    if "ray" in sys.modules:
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


def give_token(environment: MutableMapping[str, str]) -> None:
    """Sets a secret token, unless the user has set one. Ray would otherwise write a token into the home folder, which may be read-only."""
    if not any(environment.get(name) for name in TOKEN_NAMES):
        environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

        AuthenticationTokenLoader.instance().reset_cache()  # Ray may have cached that there was no token


def require_library() -> None:
    """Raises ClusterError where Python would import something else than the library Ray, or where the current folder is gone.

    Ray is not imported yet: it reads the environment when it is."""
    found = find_spec("ray")
    place = Path(found.origin) if found and found.origin else None
    if place is None or not any(place.parent.glob("_raylet*")):
        raise ClusterError(f"ray: {place or 'nothing'} is no Ray, but Python finds it as `ray`; change PYTHONPATH, or the current folder")
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ClusterError("ray: the current folder is gone, and Ray needs one; start from another folder") from None


def require_threads() -> None:
    """Raises ClusterError where this user or container may not have as many threads as a Ray needs. Ray itself would wait for a minute."""
    count, all_started = 0, _thread.allocate_lock()

    def wait() -> None:
        with all_started:
            pass

    with all_started:
        try:
            for count in range(MIN_THREADS):  # noqa: B007
                _thread.start_new_thread(wait, ())  # 3 ms for all; threading.Thread would take 70
        except RuntimeError:
            advice = NO_ADDRESSES if has_few_addresses() else "raise `ulimit -u`, or the limit of processes of the container"
            raise ClusterError(f"ray: this host allows only {count} more threads, and Ray needs {MIN_THREADS}: {advice}") from None


def has_few_addresses() -> bool:
    """Whether this process may have so much virtual memory only. The stack of each thread takes some of it."""
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def object_folder(folder: Path) -> str | None:
    """Where objects of this Ray lie if not in shared memory: in `folder`, where shared memory cannot be written."""
    return None if os.access(SHARED_MEMORY, os.W_OK) else str(folder)


def temporary_folder(environment: Mapping[str, str]) -> Path:
    """The folder for Ray's sockets and logs: RAY_TMPDIR if it is set, otherwise the first usable one of TMPDIR and FOLDERS.

    Raises ClusterError where no folder is usable."""
    named = environment.get("RAY_TMPDIR")
    usual = (environment.get("TMPDIR"), *FOLDERS)
    problems = []
    for folder in [named] if named else [folder for folder in usual if folder]:
        problem = unfit(Path(folder))
        if problem is None:
            return Path(folder, PRIVATE_FOLDER, "r")
        problems.append(f"{folder} {problem}")
        log.info("Ray's sockets cannot lie in %s", problems[-1])
    advice = "set RAY_TMPDIR to a folder of a short name that can be written"
    raise ClusterError(f"ray: no folder for its sockets and logs: {'; '.join(problems)}; {advice}")


def unfit(folder: Path) -> str | None:
    """The reason why `folder` cannot hold Ray's files, or None."""
    if not folder.is_absolute():
        return "is relative"
    if len(os.fsencode(folder)) > MAX_FOLDER_BYTES:
        return f"is longer than {MAX_FOLDER_BYTES} bytes"
    private = folder / PRIVATE_FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < MIN_FREE_BYTES:
            return f"has less than {MIN_FREE_BYTES >> 20} MiB free"
        private.mkdir(mode=0o700, exist_ok=True)
        if not is_private(private.lstat()):
            return f"has a {PRIVATE_FOLDER} that is not this user's alone; remove it"
        with TemporaryDirectory(dir=private):
            return None
    except OSError as error:
        return f"cannot be written ({error.strerror})"


def is_private(state: os.stat_result) -> bool:
    """Whether this is a folder of this user that nobody else can enter, and no link to one."""
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & 0o077


@contextmanager
def without_dashboard() -> Iterator[None]:
    """Starts Ray as if the packages of `ray[default]` were missing. With them every node's agent listens for jobs, even with
    `include_dashboard=False`, and two runs on one host would need the same port for it."""
    before = sys.modules.get(DASHBOARD_PACKAGES)
    sys.modules[DASHBOARD_PACKAGES] = None  # type: ignore[assignment]  # importing it now fails
    try:
        yield
    finally:
        del sys.modules[DASHBOARD_PACKAGES]
        if before is not None:
            sys.modules[DASHBOARD_PACKAGES] = before


@contextmanager
def on_loopback() -> Iterator[None]:
    """Makes Ray obey LOOPBACK_SETTING. Ray reads it only when it is imported, and a program may have imported Ray before."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = ray_constants.env_bool(LOOPBACK_SETTING, True)
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
