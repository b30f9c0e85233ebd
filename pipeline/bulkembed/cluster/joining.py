"""Checks within seconds whether a Ray answers at an address. Ray itself would retry for many minutes."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from bulkembed.embedding import in_process
from bulkembed.errors import ClusterError

ANSWER_SECONDS = 10.0
CLIENT_SCHEME, CLIENT_PORT = "ray://", 10001
# A client of HTTP/2, and so of gRPC, first sends the preface and an empty SETTINGS frame. A server answers with a SETTINGS frame.
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
FRAME_BYTES, FRAME_TYPE, SETTINGS = 9, 3, 4
EXPECTED_SERVER = "a Ray listens at HOST:PORT (port 6379 unless told otherwise), or 'auto' finds the one of this host"
ENDED_RAY = "the Ray that was started on this host has ended: start one again, give the address of one, or none"
TOKEN_ADVICE = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"  # noqa: S105


@dataclass(frozen=True)
class Place:
    """The host and port at which Ray looks for the cluster of an address."""

    address: str  # as the user gave it
    host: str
    port: int

    @property
    def name(self) -> str:
        """The address as given, with the host and port if they differ: Ray replaces localhost by this host's IP address."""
        place = f"{self.host}:{self.port}"
        return self.address if self.address.removeprefix(CLIENT_SCHEME) == place else f"{self.address} ({place})"


def require_cluster(address: str) -> None:
    """Raises ClusterError unless a Ray answers at `address` and accepts this process's token."""
    place = located(os.environ.get("RAY_ADDRESS") or address if address == "auto" else address)
    require_grpc(place)
    if not place.address.startswith(CLIENT_SCHEME):
        require_gcs(place)


def located(address: str) -> Place:
    if address.startswith(CLIENT_SCHEME):
        return client_place(address)
    if "://" in address:
        raise ClusterError(f"ray.address: {address} is not the address of a Ray: {EXPECTED_SERVER}")
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
    from ray._private.services import canonicalize_bootstrap_address, extract_ip_port

    if address == "auto":  # as ray.init does for a Ray that it has found itself
        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    try:
        host, port = extract_ip_port(canonicalize_bootstrap_address(address))
    except ConnectionError:
        raise ClusterError(f"ray.address: {address} finds no Ray on this host; start one, give the address of one, or none") from None
    except (ValueError, OSError) as error:
        raise ClusterError(f"ray.address: {address} is not the address of a Ray ({error}): {EXPECTED_SERVER}") from error
    return Place(address, host, port)


def client_place(address: str) -> Place:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or CLIENT_PORT
    except ValueError:
        host = None
    if not host:
        raise ClusterError(f"ray.address: {address} is not the address of a Ray Client server: that is ray://HOST:{CLIENT_PORT}")
    return Place(address, host, port)


def require_grpc(place: Place) -> None:
    """Raises ClusterError where nothing listens, or where the server does not speak gRPC."""
    try:
        with socket.create_connection((place.host, place.port), timeout=ANSWER_SECONDS) as peer:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return
            peer.sendall(HELLO)
            answer = peer.recv(FRAME_BYTES, socket.MSG_WAITALL)
    except TimeoutError:
        raise ClusterError(f"ray.address: {place.name} gives no answer within {ANSWER_SECONDS:g} s") from None
    except OSError as error:
        advice = f"; {ENDED_RAY}" if place.address == "auto" else ""
        raise ClusterError(f"ray.address: no Ray at {place.name}: {error.strerror or error}{advice}") from error
    if len(answer) < FRAME_BYTES or answer[FRAME_TYPE] != SETTINGS:
        raise ClusterError(f"ray.address: what listens at {place.name} is no Ray: {EXPECTED_SERVER}")


def require_gcs(place: Place) -> None:
    """Raises ClusterError where the server is not a cluster's GCS, or does not accept this process's token."""
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    try:
        with in_process.quiet():  # Ray's C++ code also logs what it raises
            ensure_token_if_auth_enabled(create_token_if_missing=False)
            GcsClient(address=f"{place.host}:{place.port}")
    except AuthenticationError:
        raise ClusterError(f"ray.address: {place.name} wants a token, and not the one that is set here, if any: {TOKEN_ADVICE}") from None
    except Exception as error:  # Ray's C++ code says only that the call failed
        raise ClusterError(f"ray.address: what listens at {place.name} is not the server of a Ray cluster: {EXPECTED_SERVER}") from error
