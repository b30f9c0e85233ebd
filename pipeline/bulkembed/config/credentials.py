"""Credentials in URIs, which are refused, and texts of settings, which no message repeats."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
# A URI inside a place. fsspec chains several, as in zip://name::https://host/file.zip. A missing or turned slash counts, too.
URI = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):(?P<slashes>[/\\]+)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
# A URI in a sentence, without the colon or comma that follows it, as in `s3://corpus: no such bucket`.
URI_IN_TEXT = re.compile(r"[a-z][a-z0-9+.-]+:[/\\]+[^\s\"'<>]*[^\s\"'<>:,;.]", re.IGNORECASE)
LOCAL_SCHEMES = {"file", "local"}  # a name on this host may hold any letter
HARMLESS_KEYS = {"versionid", "version_id", "version", "generation", "snapshot", "download", "ref", "revision", "raw"}
WEB_SCHEMES = {"http", "https", "webdav", "webdavs", "dav", "davs"}  # `?` is no glob there, and a query may be just a token
AZURE_SCHEMES = {"abfs", "abfss", "wasb", "wasbs"}  # they have a container before an @
BUCKET_SCHEMES = {"s3", "s3a", "s3n", "gs", "gcs", *AZURE_SCHEMES}  # they have no port: a text after a colon is a key
REFUSED = "holds credentials, or a text that looks like some, which logs would show; give them in the environment or in [storage]"
MIN_HIDDEN_CHARACTERS = 4  # a shorter text would hide half of every message
# Values that a key of the configuration takes. They are no secrets, and a message may be about them.
PLAIN_VALUES = {
    *("true", "false", "none", "auto", "local", "vllm", "simulated", "float32", "float16", "bfloat16", "int8", "binary"),
    *("truncate", "chunk", "mean", "reject", "fused", "split"),
}
# An Arrow type, as `column_types` takes it. It is no secret, and a message may say which one to set.
TYPE_NAME = re.compile(
    r"(u?int(8|16|32|64)|half_?float|float(16|32|64)?|double|bool(ean)?|(large_)?(string|utf8|binary)|date(32|64)|time(32|64)|timestamp"
    r"|duration|decimal(128|256))(\[(s|ms|us|ns|day)(, tz=[\w/+:-]+)?\]|\(\d+, ?\d+\))?"
)


def shows_credentials(place: str) -> bool:
    """Whether a URI holds a user, or a key in its query or fragment that is not known to be harmless.

    A percent-encoded one counts, too. A path on this host holds no credentials, whatever its name."""
    return any(holds_user(scheme, rest) or holds_key(scheme, rest) for scheme, rest in uris(place))


def uris(place: str) -> Iterator[tuple[str, str]]:
    """Scheme and remainder of each URI in a place, as it is written and percent-decoded."""
    for spelling in {place, unquote(unquote(place))}:
        for part in spelling.split("::"):
            yield from uris_in(part)


def uris_in(text: str) -> Iterator[tuple[str, str]]:
    uri = URI.search(text)
    if uri is None:
        return
    scheme, rest = uri["scheme"].lower(), uri["rest"]
    if scheme not in LOCAL_SCHEMES or uri["slashes"] == "//":  # file:///a@b and file:/a@b have no authority
        yield scheme, rest
    yield from uris_in(rest)


def holds_user(scheme: str, rest: str) -> bool:
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return not (scheme in AZURE_SCHEMES and re.fullmatch(r"[\w$-]+@[\w.-]+", authority))
    name, colon, port = authority.rpartition(":")
    if not colon or authority.startswith("arn:"):
        return False
    bracketed = name.startswith("[") and name.endswith("]")  # IPv6
    return scheme in BUCKET_SCHEMES or not (port == "" or port.isdigit()) or (":" in name and not bracketed)


def holds_key(scheme: str, rest: str) -> bool:
    if scheme in LOCAL_SCHEMES:
        return False
    query = re.split(r"[?#]", rest, maxsplit=1)[1:]
    for item in re.split(r"[?#&;]", query[0]) if query else ():
        key, equals, _ = item.partition("=")
        # `?` in the name of a bucket's object may be a glob. A key has an equals sign, and no slash before it.
        is_key = (scheme in WEB_SCHEMES and bool(item)) or (equals and "/" not in key)
        if is_key and key.lower() not in HARMLESS_KEYS:
            return True
    return False


def mask_credentials(text: str) -> str:
    """The message of another library, with each URI that shows credentials cut down to its scheme."""
    return URI_IN_TEXT.sub(lambda match: mask_uri(match[0]), text)


def mask_uri(uri: str) -> str:
    return f"{uri.partition(':')[0]}://{HIDDEN}" if shows_credentials(uri) else uri


class HiddenTexts:
    """Texts that this process must not repeat."""

    def __init__(self) -> None:
        self.texts: set[str] = set()

    def add(self, values: Any) -> None:
        """Add every text in `values`, which may be tables and lists."""
        for text in texts_in(values):
            if len(text) >= MIN_HIDDEN_CHARACTERS and text.lower() not in PLAIN_VALUES and not TYPE_NAME.fullmatch(text):
                # A message shows a text as it is, or as it looks between quotes.
                self.texts |= {text, repr(text)[1:-1], text.replace("\\", "\\\\").replace('"', '\\"')}

    def hide(self, message: str) -> str:
        for text in sorted(self.texts, key=len, reverse=True):
            message = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", HIDDEN, message)
        return mask_credentials(message)


hidden_texts = HiddenTexts()  # of this process


def texts_in(values: Any) -> Iterable[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from texts_in(value)
    elif isinstance(values, list | tuple | set):
        for value in values:
            yield from texts_in(value)
