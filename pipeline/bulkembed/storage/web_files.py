"""An object of a web server -> a seekable file. Many servers, `python -m http.server` among them, send whole objects alone."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

BUFFER_BYTES = 1 << 20

_gives_ranges: dict[str, bool] = {}  # by host, as this process has found


def is_web(filesystem: Any) -> bool:
    return "http" in filesystem.protocol


def open_web(filesystem: Any, path: str, **reading: Any) -> BinaryIO:
    """A file that reads ranges where the server gives them. Otherwise it is a temporary copy of the whole object, made at each call."""
    file = filesystem.open(path, "rb", **reading)
    if file.details.get("size") and gives_ranges(file):  # without a size, fsspec only reads it from front to back
        return cast(BinaryIO, file)
    file.close()
    copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
    try:
        with filesystem.open(path, "rb", block_size=0) as whole:
            shutil.copyfileobj(whole, copy, BUFFER_BYTES)
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return copy


def gives_ranges(file: Any) -> bool:
    """Whether the server of an open file gives a part of it. Asked once for each host."""
    host = urlsplit(file.url).netloc
    if host not in _gives_ranges and file.size > 1:
        try:
            file._fetch_range(1, 2)
        except ValueError:  # it sent all of it
            _gives_ranges[host] = False
        else:
            _gives_ranges[host] = True
    return _gives_ranges.get(host, True)
