"""A protocol and the options of a user -> the file system of fsspec."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import fsspec
import orjson
from fsspec.config import apply_config

from bulkembed.errors import ConfigError, StorageError, StoreSetupError
from bulkembed.storage.faults import WRONG_VALUES, describe_error
from bulkembed.storage.options import S3, Side, require_known, require_needed
from bulkembed.storage.retry import retry

# Defaults for S3; the user's settings override them. All retries happen in storage/retry.py, where they are counted: s3fs and botocore
# make one attempt each. A stalled body is abandoned after `read_timeout` seconds.
S3_SETTINGS = {"retries": {"total_max_attempts": 1}, "connect_timeout": 10, "read_timeout": 30, "max_pool_connections": 64}
CHAINED = {"zip", "tar", "libarchive", "reference", "dir", "simplecache", "filecache", "blockcache", "generic"}  # that lie in another place
# Packages that fsspec needs for a protocol, as pip takes them.
PACKAGES = {
    **dict.fromkeys(("gs", "gcs"), "'bulkembed[gcs]'"),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "'bulkembed[azure]'"),
    **{"sftp": "paramiko", "ssh": "paramiko", "smb": "smbprotocol", "webdav": "webdav4", "oci": "ocifs", "oss": "ossfs", "box": "boxfs"},
}


def protocol_of(uri: str) -> str:
    """The protocol of a URI; `file` for a path. Raises ConfigError where a file system lies inside another one."""
    protocol = uri.split("://", 1)[0] if "://" in uri else "file"
    if "::" in protocol or protocol in CHAINED:
        raise ConfigError(f"{uri}: a file system inside another one is not read; unpack it, or name the place itself")
    return protocol


@lru_cache(maxsize=16)
def file_system(protocol: str, options: bytes, side: Side, own: frozenset[str]) -> Any:
    """The file system of a protocol. `options`: JSON of the user's options. A local one takes none. `own`: those of the side alone.

    Raises ConfigError for options that it does not take, and where it cannot work on this host."""
    if protocol in ("file", "local"):
        return fsspec.filesystem("file")
    given = orjson.loads(options)
    places = {name: f"storage.{side}.{name}" for name in own}
    try:
        kind = fsspec.get_filesystem_class(protocol)
        require_known(protocol, kind, given, side, places)
        configured = apply_config(kind, {})
        variables = {name: f"FSSPEC_{protocol.upper()}_{name.upper()} (or a file of fsspec's)" for name in configured}
        require_known(protocol, kind, configured, side, variables)
        require_needed(protocol, kind, configured | given, side)
        # A listing must show the current state, not what an earlier call of this process saw.
        given["use_listings_cache"] = False
        if protocol in S3:
            given["config_kwargs"] = S3_SETTINGS | given.get("config_kwargs", {})
        return retry(lambda: opened(protocol, given), f"opening {protocol}://")
    except ImportError as error:
        advice = f"pip install {PACKAGES[protocol]}" if protocol in PACKAGES else str(error)
        raise ConfigError(f"{protocol}://: needs a package that is not installed: {advice}") from None
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{protocol}://: cannot be opened: {str(error).partition(chr(10))[0]}") from None
    except StorageError as error:
        if isinstance(error, StoreSetupError) or isinstance(error.__cause__, WRONG_VALUES):
            raise ConfigError(f"storage: the {side} cannot be opened with its options: {describe_error(error.__cause__)}") from None
        raise


def opened(protocol: str, options: dict[str, Any]) -> Any:
    """The file system. Some connect at once. That of S3 makes its client here, without a request, so that a wrong option is found now."""
    filesystem = fsspec.filesystem(protocol, **options)
    if protocol in S3:
        filesystem.retries = 1
        filesystem.connect()
    return filesystem
