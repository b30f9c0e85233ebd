"""Local paths and model names -> absolute ones, which mean the same in every process. Workers have another working folder."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
HALF_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/(?!/)")
HADOOP_SCHEMES = {"s3n": "s3"}  # that fsspec does not know
THIS_HOST = "file://localhost/"  # as some tools write file:///
WEB_SCHEMES = ("http://", "https://")
LOCAL_SCHEMES = ("file://", "local://", "file:", "local:")  # that fsspec takes for the local file system


def absolute_place(uri: str) -> str:
    """A local path made absolute, without a scheme; any other URI with its scheme in small letters.

    Raises ValueError where `~` is nobody's home, where a slash of a scheme is missing, and for a web address without a usable host."""
    refuse_half_scheme(uri)
    if uri.lower().startswith(WEB_SCHEMES):
        require_host(uri)
    if SCHEME.match(uri):
        name, _, rest = uri.partition("://")
        uri = f"{HADOOP_SCHEMES.get(name.lower(), name.lower())}://{rest}"
        uri = uri.replace(THIS_HOST, "file:///", 1) if uri.startswith(THIS_HOST) else uri
    scheme = next((scheme for scheme in LOCAL_SCHEMES if uri.lower().startswith(scheme)), "")
    remote = "://" in uri and not scheme
    return uri if remote or not uri.strip() else absolute_path(uri[len(scheme) :])


def refuse_half_scheme(uri: str) -> None:
    """`s3:/bucket` would be a local folder, into which a run would write and which nobody would look into."""
    found = HALF_SCHEME.match(uri)
    if found and not uri.lower().startswith(LOCAL_SCHEMES) and not Path(uri).exists():
        from fsspec.registry import known_implementations

        if found[1].lower() in {*known_implementations, *HADOOP_SCHEMES}:
            raise ValueError(f"begins with {found[1]}:/, and a slash is missing: write {found[1]}://")


def require_host(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # a bracket without its partner, a port that is no number
        usable = False
    if not usable:
        raise ValueError("has no usable host or port; write it as https://host/path or https://host:8080/path")


def file_in_the_way(place: str) -> str | None:
    """The file at a local place or above it, where no folder can be; None where there is none, and for other places."""
    paths = () if "://" in place else (Path(place), *Path(place).parents)
    for path in paths:
        with suppress(OSError):  # what this user cannot look at may be a folder
            if path.exists() and not path.is_dir():
                return str(path)
    return None


def absolute_model(name: str) -> str:
    """A folder's name made absolute, without a scheme; a hub name, or a name of nothing, as it is."""
    path = absolute_place(name)
    return path if name.strip() and Path(path).is_dir() else name


def absolute_path(path: str) -> str:
    try:
        # Links and `..` are kept, since their targets may change before they are read.
        return str(Path(path).expanduser().absolute())
    except RuntimeError:
        raise ValueError("begins with ~, but no home folder is known here; give an absolute path") from None
    except FileNotFoundError:
        raise ValueError("is relative, but the current folder is gone; give an absolute path") from None
