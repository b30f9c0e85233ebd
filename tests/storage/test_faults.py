"""What the clients of stores raise: retried or not, and told in one line."""

from __future__ import annotations

import errno
import ftplib
import socket
from typing import Any

import aiohttp
import botocore.exceptions
import google.auth.exceptions
import httpx2 as httpx  # the client of huggingface_hub
import huggingface_hub.errors
import pytest
import requests
from aiohttp import web

from bulkembed.errors import BulkembedError, StorageError, StoreSetupError
from bulkembed.storage import retry
from bulkembed.storage.store import Store
from tests.support import client_errors
from tests.support.faulty_s3 import serving

REQUEST = httpx.Request("GET", "https://hub/api")


def http(status: int) -> aiohttp.ClientResponseError:
    info: Any = aiohttp.RequestInfo(None, "GET", {}, None)  # type: ignore[arg-type]
    return aiohttp.ClientResponseError(info, (), status=status, message="said the server")


def hub(status: int) -> huggingface_hub.errors.HfHubHTTPError:
    return huggingface_hub.errors.HfHubHTTPError("said the hub\nin two lines", response=httpx.Response(status, request=REQUEST))


def google_error(name: str) -> Exception:
    kind: type[Exception] = getattr(google.auth.exceptions, name)
    return kind("said the client")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


TRANSIENT = [
    *(http(503), http(429), aiohttp.ServerDisconnectedError(), aiohttp.ClientPayloadError("short"), TimeoutError()),
    *(httpx.ConnectError("Name or service not known"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("closed"), hub(503), hub(429)),
    botocore.exceptions.EndpointConnectionError(endpoint_url="x"),
    *(google_error("TransportError"), requests.ConnectionError("reset"), requests.ReadTimeout("slow")),
    *(ftplib.error_temp("421 too many"), socket.gaierror(-3, "Temporary failure in name resolution"), OSError(errno.EIO, "I/O")),
    caused(FileNotFoundError("gone, says fsspec"), http(503)),
    *(botocore.exceptions.ConnectTimeoutError(endpoint_url="x"), botocore.exceptions.SSLError(endpoint_url="x", error="reset")),
    *(botocore.exceptions.HTTPClientError(error="reset"), botocore.exceptions.FlexibleChecksumError(error_msg="differs")),
    *client_errors.transient(),
]
FINAL = [
    *(http(400), http(403), http(501), hub(401), hub(404), huggingface_hub.errors.OfflineModeIsEnabled("offline")),
    botocore.exceptions.SSLError(endpoint_url="x", error="[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"),
    *(httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"), google_error("RefreshError")),
    ftplib.error_perm("530 login incorrect"),
    *client_errors.final(),
    *(PermissionError(errno.EACCES, "no"), OSError(errno.ENOSPC, "No space left")),
    caused(FileNotFoundError("gone, says fsspec"), http(401)),
]


def attempts_at(error: Exception, monkeypatch: pytest.MonkeyPatch) -> tuple[int, Exception]:
    monkeypatch.setattr(retry, "ATTEMPTS", 3)
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.001)
    calls = 0

    def work() -> None:
        nonlocal calls
        calls += 1
        raise error

    with pytest.raises(Exception) as caught:
        retry.retry(work, "reading x")
    return calls, caught.value


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_a_fault_of_the_network_or_of_a_server_is_tried_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, told = attempts_at(error, monkeypatch)
    assert (calls, type(told)) == (3, StorageError)


@pytest.mark.parametrize("error", FINAL, ids=repr)
def test_a_refusal_is_told_at_once(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, told = attempts_at(error, monkeypatch)
    assert (calls, type(told)) == (1, StorageError)
    assert len(str(told).splitlines()) == 1
    status = {
        getattr(error, "status", 0),
        getattr(getattr(error, "response", None), "status_code", 0),
        getattr(error.__cause__, "status", 0),
    }
    if status & {401, 403}:
        assert str(told).endswith("check or renew the credentials")


@pytest.mark.parametrize("error", list(client_errors.mistakes()), ids=repr)
def test_missing_credentials_and_wrong_options_are_the_users_to_mend(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, told = attempts_at(error, monkeypatch)
    assert (calls, type(told)) == (1, StoreSetupError)
    assert len(str(told).splitlines()) == 1
    assert "[storage]" in str(told)


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("x"), OSError("corrupt: no number"), BulkembedError("told already")])
def test_what_is_no_fault_of_a_store_passes_through(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempts_at(error, monkeypatch) == (1, error)


def test_an_object_that_is_not_there_stays_that(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (FileNotFoundError("x"), caused(FileNotFoundError("x"), http(404)), caused(FileNotFoundError("x"), ValueError())):
        assert attempts_at(error, monkeypatch) == (1, error)


def test_a_type_error_in_a_clients_own_code_is_of_an_option() -> None:
    """Here within aiohttp, which has no class for it."""
    for options in ({"headers": 3}, {"ssl": "no"}):
        with pytest.raises(StoreSetupError, match=r"reading http://127\.0\.0\.1:1/a: TypeError.*see \[storage\]"):
            Store(options).read("http://127.0.0.1:1/a")


@pytest.mark.parametrize(("status", "line"), [(503, "503"), (403, "check or renew"), (451, "451")])
def test_a_web_server_that_says_no_is_not_a_server_without_the_object(monkeypatch: pytest.MonkeyPatch, status: int, line: str) -> None:
    monkeypatch.setattr(retry, "ATTEMPTS", 2)
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.001)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status)

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    with serving(application) as url:
        for ask in (Store().objects, Store().read, Store().version, Store().stands):
            with pytest.raises(StorageError, match=line):
                ask(f"{url}/a.jsonl")
