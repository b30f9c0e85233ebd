"""A disk that only the processes of a round see: a tmpfs in a mount namespace of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
NAMESPACE = "CHAOS_MOUNT_NAMESPACE"  # this variable is set in the processes of a round that may mount
MEGABYTES = 256  # of the disk


def can_mount() -> bool:
    """Whether this process may have a mount namespace of its own, without being root."""
    return shutil.which("unshare") is not None and subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


def is_own_namespace() -> bool:
    return NAMESPACE in os.environ


def enter_namespace(module: str) -> None:
    """Runs this program again in a mount namespace of its own. Returns where it is in one."""
    if not is_own_namespace():
        os.execvpe("unshare", [*UNSHARE, sys.executable, "-m", module, *sys.argv[1:]], os.environ | {NAMESPACE: "1"})  # noqa: S606


def mount(folder: Path) -> None:
    """Mounts an empty disk. It goes with the last process of the namespace."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", folder], check=True)
