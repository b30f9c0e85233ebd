"""An S3 server over HTTP."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bulkembed.storage.store import Store
from tests.support.processes import free_port, wait_for_port


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, Any]]:
    """A real S3 server over HTTP with a bucket named `corpus`: its storage options. Its log goes to a file in `folder`."""
    port = free_port()
    # A pipe that nobody reads would fill, and the server would stop in mid-answer.
    with (folder / "s3.log").open("w") as log:
        server = subprocess.Popen([Path(sys.executable).parent / "moto_server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
        try:
            wait_for_port(port, server)
            options = {"key": "planted-key", "secret": "planted-secret", "endpoint_url": f"http://127.0.0.1:{port}"}
            Store(options)._locate("s3://corpus/")[0].mkdir("corpus")
            yield options
        finally:
            server.kill()
            server.wait()
