"""Addresses where no Ray is: each is one line, within seconds."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from bulkembed.cluster import joining
from bulkembed.errors import ClusterError
from tests.support.corpora import write_jsonl
from tests.support.processes import bulkembed, free_port


@contextmanager
def server(answer: bytes | None) -> Iterator[str]:
    """Address of a server that says `answer` to everybody, or nothing at all."""
    with socket.create_server(("", 0)) as listening:

        def serve() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(100)
                if answer is None:
                    peer.recv(100)  # until the other side gives up
                else:
                    peer.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        ("no.such.host.invalid:6379", "no Ray at no.such.host.invalid:6379: "),
        ("head", r"head is not the address of a Ray \(Invalid address format: head\)"),
        ("head:port", "head:port is not the address of a Ray"),
        ("127.0.0.1:99999999", "Must be between 1024 and 65535"),
        ("http://127.0.0.1:8265", "http://127.0.0.1:8265 is not the address of a Ray: .*HOST:PORT"),
        ("other://127.0.0.1:8265", "is not the address of a Ray"),
        ("ray://", "is not the address of a Ray Client server"),
        ("ray://host:port", "is not the address of a Ray Client server"),
    ],
)
def test_an_address_that_cannot_be_one(address: str, cause: str) -> None:
    with pytest.raises(ClusterError, match=f"^ray.address: .*{cause}"):
        joining.require_cluster(address)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_nobody_listens(scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    with pytest.raises(ClusterError, match=f"no Ray at {address}.*: Connection refused"):
        joining.require_cluster(address)


def test_a_web_server_listens() -> None:
    with server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address, pytest.raises(ClusterError, match=f"listens at {address}.* is no Ray"):
        joining.require_cluster(address)


def test_a_server_that_says_little() -> None:
    with server(b"hi") as address, pytest.raises(ClusterError, match=f"{address}"):
        joining.require_cluster(address)


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "ANSWER_SECONDS", 0.2)
    with server(None) as address, pytest.raises(ClusterError, match=r"gives no answer within 0.2 s"):
        joining.require_cluster(address)


def test_another_server_that_speaks_grpc() -> None:
    grpc = pytest.importorskip("grpc")

    with ThreadPoolExecutor(1) as pool:
        other = grpc.server(pool)
        port = other.add_insecure_port("0.0.0.0:0")
        other.start()
        try:
            with pytest.raises(ClusterError, match="is not the server of a Ray cluster"):
                joining.require_cluster(f"127.0.0.1:{port}")
        finally:
            other.stop(None).wait()


def test_auto_where_no_ray_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import services

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # left as it is, it would be set for the rest of this process
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    with pytest.raises(ClusterError, match="auto finds no Ray on this host"):
        joining.require_cluster("auto")


def test_auto_where_the_ray_of_this_host_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file of the address stays, unless `ray stop` takes it away."""
    from ray._private import services

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{free_port()}")
    with pytest.raises(ClusterError, match=r"no Ray at auto .*the Ray that was started on this host has ended: start one again"):
        joining.require_cluster("auto")


def test_auto_is_the_address_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterError, match=f"no Ray at {address}"):
        joining.require_cluster("auto")


def test_a_wrong_address_is_one_line_of_the_command(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": 1, "text": "a b"}])
    places = ("--source", tmp_path / "in", "--output", tmp_path / "out", "--model", qwen)
    address = f"127.0.0.1:{free_port()}"
    result = bulkembed("run", *places, "--set", "engine.kind=simulated", "--max-tokens", 64, RAY_ADDRESS=address)
    assert result.returncode == 2
    assert result.stderr.startswith(f"bulkembed: ray.address: no Ray at {address}")
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("ray_session")
def test_a_ray_that_is_there() -> None:
    import ray

    joining.require_cluster(ray.get_runtime_context().gcs_address)
