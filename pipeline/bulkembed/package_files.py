"""The bulkembed of this process: its version and the digest of its files. All processes of a run must have the same."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from bulkembed import __version__
from bulkembed.errors import ConfigError


@dataclass(frozen=True)
class Package:
    """What was installed where a run was planned."""

    version: str
    digest: str  # of the files that Python runs, by name and content

    def require_here(self) -> None:
        """Raises ConfigError where this process has another bulkembed, which could read, embed or write a shard differently."""
        here = installed()
        if here == self:
            return
        found = f"version {here.version}, the driver {self.version}"
        if here.version == self.version:
            found = f"other files of version {here.version} than the driver ({here.digest}, not {self.digest})"
        raise ConfigError(
            f"bulkembed: {socket.gethostname()} has {found}; nothing of it is published; install the same version on every node"
        )


@lru_cache(maxsize=1)
def installed() -> Package:
    """That of this process. A few milliseconds, once."""
    folder, digest = Path(__file__).parent, sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + sha256(path.read_bytes()).digest())
    return Package(__version__, digest.hexdigest()[:16])
