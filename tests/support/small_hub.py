"""A model hub on loopback that speaks as much of the hub's HTTP as fetching a model takes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_planted"
# How the hub says no: status and its own code, by what a model is.
REFUSALS = {"gated": (401, "GatedRepo"), "private": (401, "RepoNotFound"), "broken": (503, "")}


@dataclass
class SmallHub:
    """Serves the folder `name` below `root` as the model `name`. `kind`: open, gated, private or broken."""

    root: Path
    kind: str = "open"
    endpoint: str = ""
    busy: int = 0  # requests for the list of files that are answered with 503 before the others
    large: str = ".safetensors"  # ends of the names of files that are not in git itself
    # The folder below root of each revision; empty: the model's own.
    commits: dict[str, str] = field(default_factory=lambda: {"main": "", COMMIT: ""})
    downloads: Counter[str] = field(default_factory=Counter)  # whole files sent, by name

    def environment(self, cache: Path) -> dict[str, str]:
        # A model that a test has loaded in its own process has set HF_HUB_OFFLINE there.
        return {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if self.busy and "/tree/" in request.path:
            self.busy -= 1
            return reply(request, 503, b"", {})
        allowed = self.kind == "open" or (self.kind != "broken" and request.headers.get("Authorization") == f"Bearer {TOKEN}")
        path = request.path.split("?")[0]
        parts = path.strip("/").split("/")
        allowed = allowed or (self.kind == "gated" and path.startswith("/api/"))  # everybody may see what there is
        if not allowed:
            status, code = REFUSALS[self.kind]
            reply(request, status, b"", {"X-Error-Code": code, "X-Error-Message": "refused"})
        elif path.startswith("/api/models/"):
            name, verb = "/".join(parts[2:4]), parts[4] if len(parts) > 4 else "revision"
            revision = parts[5] if len(parts) > 5 else "main"
            if not (self.root / name).is_dir():
                reply(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
            elif revision not in self.commits:
                reply(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
            else:
                folder = self.folder(name, revision)
                entries = [entry(file, folder, self.large) for file in sorted(folder.rglob("*")) if file.is_file()]
                answer: Any = (
                    entries
                    if verb == "tree"
                    else {"id": name, "sha": commit_of(revision), "siblings": [sibling(entry) for entry in entries]}
                )
                reply(request, 200, json.dumps(answer).encode(), {"Content-Type": "application/json"})
        elif len(parts) > 4 and (self.folder("/".join(parts[:2]), parts[3]) / "/".join(parts[4:])).is_file():
            self.send_file(request, self.folder("/".join(parts[:2]), parts[3]), "/".join(parts[4:]), parts[3])
        else:
            reply(request, 404, b"", {"X-Error-Code": "EntryNotFound"})

    def folder(self, name: str, revision: str) -> Path:
        return self.root / (self.commits[revision] or name)

    def send_file(self, request: BaseHTTPRequestHandler, folder: Path, name: str, revision: str) -> None:
        data = (folder / name).read_bytes()
        if request.command == "GET":
            self.downloads[name] += 1
        headers = {
            "ETag": f'"{etag(data, name, self.large)}"',
            "X-Repo-Commit": commit_of(revision),
            "Accept-Ranges": "bytes",
        }
        reply(request, 200, data, headers)


def commit_of(revision: str) -> str:
    return COMMIT if revision == "main" else revision


def etag(data: bytes, name: str, large: str) -> str:
    """Large files go by their SHA-256, others by git's hash."""
    if name.endswith(large):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def entry(path: Path, folder: Path, large: str) -> dict[str, Any]:
    data, name = path.read_bytes(), path.relative_to(folder).as_posix()
    described: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": etag(data, "", large)}
    if name.endswith(large):
        described["lfs"] = {"oid": etag(data, name, large), "size": len(data), "pointerSize": 130}
    return described


def sibling(entry: dict[str, Any]) -> dict[str, Any]:
    """The same file as the description of a model has it."""
    lfs = {"sha256": entry["lfs"]["oid"], "size": entry["size"], "pointerSize": 130} if "lfs" in entry else None
    return {"rfilename": entry["path"], "blobId": entry["oid"], "size": entry["size"]} | ({"lfs": lfs} if lfs else {})


def reply(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(body)


@contextmanager
def small_hub(root: Path) -> Iterator[SmallHub]:
    hub = SmallHub(root)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.answer(self)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
