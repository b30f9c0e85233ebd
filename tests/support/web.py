"""Web servers in threads of their own."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Sends whole objects with Last-Modified, as `python -m http.server` does: no ETag, and no ranges."""

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Dateless(Quiet):
    """Tells only the size of JSON lines."""

    def send_header(self, keyword: str, value: str) -> None:
        if keyword != "Last-Modified" or not self.path.endswith(".jsonl"):
            super().send_header(keyword, value)


@contextmanager
def web_server(folder: Path, handler: type[Quiet] = Quiet) -> Iterator[str]:
    """The URL of a server of the files in `folder`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
