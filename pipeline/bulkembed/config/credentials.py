"""What no message, log or record may show: credentials in URIs, and texts that were given as settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
# A URI inside a place: fsspec chains several, as in zip://name::https://host/file.zip, and a slash is soon forgotten or turned round.
URI = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):(?P<slashes>[/\\]+)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
# Without the colon or comma of the sentence behind it, as in `s3://corpus: no such bucket`.
IN_TEXT = re.compile(r"[a-z][a-z0-9+.-]+:[/\\]+[^\s\"'<>]*[^\s\"'<>:,;.]", re.IGNORECASE)
LOCAL = {"file", "local"}  # a name on this host may hold any letter
PLAIN_KEYS = {"versionid", "version_id", "version", "generation", "snapshot", "download", "ref", "revision", "raw"}
WEB = {"http", "https", "webdav", "webdavs", "dav", "davs"}  # where `?` is no glob, and a query may be nothing but a token
CONTAINERS = {"abfs", "abfss", "wasb", "wasbs"}  # of Azure, written before an @
BUCKETS = {"s3", "s3a", "s3n", "gs", "gcs", *CONTAINERS}  # which have no port: what stands behind a colon is a key
REFUSED = "holds credentials, or what may be some, which logs would show; give them in the environment or in [storage]"
MIN_HIDDEN_CHARACTERS = 4  # of a text that is hidden: shorter ones would hide half of every message
# Values that the configuration takes, and so are no secrets: a message may be about them.
PLAIN_VALUES = {
    *("true", "false", "none", "auto", "local", "vllm", "simulated", "float32", "float16", "bfloat16", "int8", "binary"),
    *("truncate", "chunk", "mean", "reject", "fused", "split"),
}


def shows_credentials(place: str) -> bool:
    """Whether a URI holds credentials, or what could be some: a user, or a key in its query or fragment that is not known to be
    harmless. Written as it is or percent-encoded. A path on this host holds none, whatever its name."""
    return any(holds_user(scheme, rest) or holds_key(scheme, rest) for scheme, rest in uris(place))


def uris(place: str) -> Iterator[tuple[str, str]]:
    """The scheme of each URI in a place, and what stands behind its slashes: as it is and decoded."""
    for spelling in {place, unquote(unquote(place))}:
        for part in spelling.split("::"):
            yield from uris_in(part)


def uris_in(text: str) -> Iterator[tuple[str, str]]:
    found = URI.search(text)
    if found is None:
        return
    scheme, rest = found["scheme"].lower(), found["rest"]
    if scheme not in LOCAL or found["slashes"] == "//":  # file:///a@b and file:/a@b have no authority
        yield scheme, rest
    yield from uris_in(rest)


def holds_user(scheme: str, rest: str) -> bool:
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return not (scheme in CONTAINERS and re.fullmatch(r"[\w$-]+@[\w.-]+", authority))
    name, colon, port = authority.rpartition(":")
    if not colon or authority.startswith("arn:"):
        return False
    bracketed = name.startswith("[") and name.endswith("]")  # IPv6
    return scheme in BUCKETS or not (port == "" or port.isdigit()) or (":" in name and not bracketed)


def holds_key(scheme: str, rest: str) -> bool:
    if scheme in LOCAL:
        return False
    behind = re.split(r"[?#]", rest, maxsplit=1)[1:]
    for item in re.split(r"[?#&;]", behind[0]) if behind else ():
        key, equals, _ = item.partition("=")
        # Of a bucket, `?` is also any letter: a key has an equals sign, and no slash before it.
        is_key = (scheme in WEB and bool(item)) or (equals and "/" not in key)
        if is_key and key.lower() not in PLAIN_KEYS:
            return True
    return False


def masked(text: str) -> str:
    """A message of another library without the credentials of the URIs in it."""
    return IN_TEXT.sub(lambda found: masked_uri(found[0]), text)


def masked_uri(uri: str) -> str:
    return f"{uri.partition(':')[0]}://{HIDDEN}" if shows_credentials(uri) else uri


class Concealed:
    """Texts that this process must not repeat."""

    def __init__(self) -> None:
        self.texts: set[str] = set()

    def add(self, values: Any) -> None:
        """Every text in `values`, which may be tables and lists of them."""
        for text in texts_in(values):
            if len(text) >= MIN_HIDDEN_CHARACTERS and text.lower() not in PLAIN_VALUES:
                # As it is, and as it looks between quotes.
                self.texts |= {text, repr(text)[1:-1], text.replace("\\", "\\\\").replace('"', '\\"')}

    def hide(self, message: str) -> str:
        for text in sorted(self.texts, key=len, reverse=True):
            message = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", HIDDEN, message)
        return masked(message)


concealed = Concealed()  # by this process


def texts_in(values: Any) -> Iterable[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from texts_in(value)
    elif isinstance(values, list | tuple | set):
        for value in values:
            yield from texts_in(value)
