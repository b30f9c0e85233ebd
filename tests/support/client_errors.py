"""What the clients of Azure and Google raise, by their own classes. A client that is not installed gives none."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Iterator
from typing import Any


def of(module: str, name: str, *arguments: Any, **attributes: Any) -> Exception:
    error: Exception = getattr(importlib.import_module(module), name)(*arguments)
    for attribute, value in attributes.items():
        setattr(error, attribute, value)
    return error


WRAP = """
def wrap(cause):
    try:
        raise cause
    except Exception as error:
        raise RuntimeError("Failed to upload block: said adlfs") from error
"""


def wrapped(cause: Exception) -> Exception:
    """As adlfs raises, in its own code, whatever its client raised."""
    names: dict[str, Any] = {"__name__": "adlfs.spec"}
    exec(WRAP, names)
    try:
        names["wrap"](cause)
    except RuntimeError as error:
        return error
    raise AssertionError


def has(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of the package above it
        return False


def answered(status: int) -> Exception:
    """What gcsfs makes of an answer with this status."""
    body = json.dumps({"error": {"code": status, "message": "said the server", "errors": [{"message": "said the server"}]}}).encode()
    try:
        importlib.import_module("gcsfs.retry").validate_response(status, body, "corpus/a", ())
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError(f"{status} is no error to gcsfs")


def transient() -> Iterator[Exception]:
    yield from plain_transient()
    yield from map(wrapped, plain_transient())


def final() -> Iterator[Exception]:
    yield from plain_final()
    yield from map(wrapped, plain_final())


def plain_transient() -> Iterator[Exception]:
    if has("gcsfs"):
        yield from (answered(status) for status in (429, 500, 502, 503))
        yield of("gcsfs.retry", "ChecksumError", "md5 differs")
        yield from (of("google.api_core.exceptions", name, "busy") for name in ("ServiceUnavailable", "TooManyRequests", "GatewayTimeout"))
    if has("adlfs"):
        exceptions = "azure.core.exceptions"
        yield from (of(exceptions, name, "lost") for name in ("ServiceRequestError", "ServiceResponseError", "IncompleteReadError"))
        yield of(exceptions, "ServiceResponseTimeoutError", "slow")
        yield from (of(exceptions, "HttpResponseError", "busy", status_code=status) for status in (408, 429, 500, 503))


def plain_final() -> Iterator[Exception]:
    if has("gcsfs"):
        yield from (answered(status) for status in (400, 401, 403, 409))
        yield of("gcsfs.retry", "NonRetryableError", "said gcsfs")
        yield from (of("google.api_core.exceptions", name, "no") for name in ("Forbidden", "BadRequest", "Unauthorized"))
    if has("adlfs"):
        exceptions = "azure.core.exceptions"
        yield from (of(exceptions, "HttpResponseError", "no\nin lines", status_code=status) for status in (400, 403, 409, 412))
        yield of(exceptions, "ClientAuthenticationError", "no", status_code=403)
        yield of("azure.storage.blob", "PartialBatchErrorException", "some failed", None, [])


def mistakes() -> Iterator[Exception]:
    """Credentials that are nowhere, and options of which a client can make nothing."""
    for name, values in (
        ("NoCredentialsError", {}),
        ("PartialCredentialsError", {"provider": "x", "cred_var": "secret"}),
        ("ProfileNotFound", {"profile": "x"}),
        ("InvalidS3AddressingStyleError", {"s3_addressing_style": "x"}),
        ("UnknownSignatureVersionError", {"signature_version": "x"}),
        ("ParamValidationError", {"report": "x"}),
    ):
        yield getattr(importlib.import_module("botocore.exceptions"), name)(**values)
    yield of("google.auth.exceptions", "DefaultCredentialsError", "said the client")
    yield of("requests.exceptions", "InvalidURL", "no")
    yield of("aiohttp", "InvalidURL", "no")
    yield of("httpx2", "UnsupportedProtocol", "no")
    if has("azure.identity"):
        yield of("azure.identity", "CredentialUnavailableError", "no credential\nof any kind")
