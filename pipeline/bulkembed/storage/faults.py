"""An exception -> what kind of fault it is: one of a store or not, worth another attempt or not; and its words.

The clients of stores have no common class of errors. They are known by the package that defines the error, or that raised it."""

from __future__ import annotations

import errno
import re
import zlib
from collections.abc import Iterator
from types import TracebackType

import pyarrow as pa

from bulkembed.storage.compression import DAMAGED

# What libraries raise for bytes that are not of the format that the name says.
CORRUPT = (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, zlib.error, *DAMAGED)
# Packages of fsspec's file systems, and of the clients below them.
CLIENTS = {
    *("fsspec", "s3fs", "aiobotocore", "botocore", "aiohttp", "gcsfs", "google", "requests", "urllib3", "adlfs", "azure", "msal"),
    *("huggingface_hub", "httpx", "httpcore", "httpx2", "httpcore2", "ftplib", "paramiko", "smbprotocol", "webdav4"),
    *("ocifs", "oci", "ossfs"),
}
# These errors are about the request, not about the state of the store. The same request would fail again.
FINAL_ERRORS = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
FINAL_ERROR_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.EFBIG, errno.ENOSYS, errno.ELOOP}
FINAL_NAMES = {"ClientConnectorCertificateError", "OfflineModeIsEnabled", "NonRetryableError"}
UNKNOWN_CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"  # in the message of any client's error
# Classes for credentials that are nowhere, and for options of which a client can make nothing. They are the user's to mend.
LACKING_NAMES = {
    *("NoCredentialsError", "PartialCredentialsError", "NoAuthTokenError", "SSOTokenLoadError"),  # botocore
    *("DefaultCredentialsError", "CredentialUnavailableError"),  # google and azure
}
MISTAKE_NAMES = {*LACKING_NAMES, "InvalidURL", "MissingSchema", "LocationParseError", "UnsupportedProtocol"}
# Errors of this class are about options, except those of NETWORK_NAMES.
OF_OPTIONS = "BotoCoreError"
WRONG_VALUES = (TypeError, ValueError, AttributeError, KeyError)  # what clients raise for a value of another type
# Classes of clients for faults of the network or the server. A class below one of these is one, too.
NETWORK_NAMES = {
    *(
        "ClientError",
        "HTTPClientError",
        "FlexibleChecksumError",
        "CredentialRetrievalError",
        "MetadataRetrievalError",
    ),  # aiohttp and botocore
    *("TransportError", "ServiceRequestError", "ServiceResponseError", "IncompleteReadError"),  # httpx, google and azure
    *("ConnectionError", "Timeout", "ChunkedEncodingError", "ContentDecodingError", "ChecksumError"),  # requests and gcsfs
    *("SSHException", "error_temp", "ProtocolError", "XetDownloadError"),  # paramiko, ftplib, urllib3, huggingface_hub
}
DAMAGED_REQUEST_CODES = {"IncompleteBody", "BadDigest"}  # the request was damaged on its way; other invalid requests stay invalid
STATUS = re.compile("[1-5][0-9]{2}")
RETRIED_STATUS = {408, 425, 429}  # and all from 500 on, except those that mean that the server cannot do it
REFUSED_STATUS, GONE_STATUS, NEVER_STATUS = {401, 403}, {404, 410}, {501, 505}


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    names = class_names(error)
    if isinstance(error, FINAL_ERRORS) or names & FINAL_NAMES or is_mistake(error) or UNKNOWN_CERTIFICATE in str(error):
        return False
    if "ClientError" in names and s3_code(error):
        return True
    status = own_status(error) if names & NETWORK_NAMES else status_of(error) if is_of_client(error) else None
    if status is not None:
        return status in RETRIED_STATUS or (status >= 500 and status not in NEVER_STATUS)
    if names & NETWORK_NAMES:  # tested before OSError, since some errors are both
        return True
    if isinstance(error, OSError):
        # A library that finds corrupt data raises an OSError without a number (pyarrow does).
        lost = isinstance(error, TimeoutError | ConnectionError)
        final = error.errno in FINAL_ERROR_NUMBERS or (error.errno == errno.EINVAL and s3_code(error) not in DAMAGED_REQUEST_CODES)
        return lost or (error.errno is not None and not final)
    # s3fs 2026.2 raises IndexError for a time-out without a message: S3File._fetch_range reads the first argument of the error.
    # adlfs raises RuntimeError and ValueError for whatever happened.
    reason = error.__cause__ or error.__context__
    return is_of_client(error) and reason is not None and is_transient(reason)


def is_mistake(error: BaseException | None) -> bool:
    """Whether credentials are missing, or an option has a value of which the client can make nothing."""
    names = class_names(error) if error is not None else set()
    if names & MISTAKE_NAMES or (OF_OPTIONS in names and not names & NETWORK_NAMES):
        return True
    if isinstance(error, TypeError) and is_of_client(error):  # such as text in place of a list
        return True
    # botocore's client for HTTP wraps whatever happens in it, such as a time-out that is no number or a certificate that is no file.
    wrapped = error.__context__ if error is not None and type(error).__name__ == "HTTPClientError" else None
    return isinstance(wrapped, (*WRONG_VALUES, FileNotFoundError))


def is_of_store(error: BaseException) -> bool:
    """Whether it is a fault of a store or its client, and none of the data or of this program."""
    numbered = isinstance(error, OSError) and error.errno is not None
    return numbered or isinstance(error, FINAL_ERRORS) or is_of_client(error) or is_transient(error)


def is_of_client(error: BaseException) -> bool:
    """Whether a client of a store defines this error, or raised it."""
    return bool(class_names(error)) or any(is_client(module) for module in modules_of(error.__traceback__))


def class_names(error: BaseException) -> set[str]:
    """The names of the error's classes that clients define."""
    return {kind.__name__ for kind in type(error).__mro__ if is_client(kind.__module__)}


def is_client(module: str) -> bool:
    return module.partition(".")[0] in CLIENTS


def modules_of(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        yield str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next


def status_of(error: BaseException) -> int | None:
    """The status of the HTTP answer that an error, or its cause, is about."""
    own = own_status(error)
    return own_status(error.__cause__) if own is None and error.__cause__ is not None else own


def own_status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # of botocore
        told: int | None = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return told
    for holder, name in ((error, "status"), (error, "status_code"), (response, "status_code"), (error, "code")):
        value = getattr(holder, name, None)
        if isinstance(value, int | str) and STATUS.fullmatch(text := str(value if isinstance(value, str) else int(value))):
            return int(text)
    return None


def s3_code(error: BaseException) -> str:
    """The code of an S3 server's error, which s3fs has translated. It is "400" for a HEAD request, whose answer has no body."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def fault_behind(error: FileNotFoundError) -> Exception:
    """The error itself, or what was the matter: fsspec says of every fault of a web server that nothing is there."""
    cause = error.__cause__
    if not isinstance(cause, Exception) or isinstance(cause, FileNotFoundError) or not is_of_client(cause):
        return error
    status = status_of(cause)
    if status in REFUSED_STATUS:
        return PermissionError(errno.EACCES, f"the server answered {status}")
    is_gone = status in GONE_STATUS or (status is None and not is_transient(cause))
    return error if is_gone else cause


def is_refusal(error: BaseException) -> bool:
    """Whether the credentials are the matter."""
    return isinstance(error, PermissionError) or status_of(error) in REFUSED_STATUS or s3_code(error) == "400" or "Forbidden" in str(error)


def describe_error(error: BaseException | None) -> str:
    """One line of an exception."""
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}".rstrip(": ")
