"""Names in a listing -> those that are not read: hidden ones, and those that a pattern excludes."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from fsspec.utils import glob_translate

from bulkembed.errors import ConfigError

# Why a name is left out. The message has a count before it.
HIDDEN = "hidden by a leading dot or underscore"
EXCLUDED = "excluded by"  # the pattern follows


@dataclass
class NameRules:
    """What a listing leaves out by name. A folder that is left out is left out with all below it."""

    hidden: tuple[str, ...] = ()  # how the names of hidden files and folders begin
    excluded: Sequence[str] = ()  # globs; one with a slash is of a path below `root`, any other one of a name at any depth
    root: str = ""  # the path that `excluded` starts from
    decided: dict[str, str] = field(default_factory=dict)  # reasons by folder, empty for those that are read

    def __post_init__(self) -> None:
        self.patterns = [(pattern, *compiled(pattern)) for pattern in self.excluded]

    def reason(self, path: str) -> str:
        """Why this name is left out, in a folder that is read; empty where it is read."""
        name = posixpath.basename(path)
        if name.startswith(self.hidden):
            return HIDDEN
        place = path.removeprefix(self.root.rstrip("/")).strip("/") or name
        for pattern, plain, test, is_path in self.patterns:
            tested = place if is_path else name
            if tested == plain or test.match(tested):
                return f"{EXCLUDED} {pattern}"
        return ""

    def left_out_part(self, path: str, folder: str) -> tuple[str, str] | None:
        """`path` up to its first component below `folder` that is left out, and why; None where it is read.

        A folder that is left out ends in a slash."""
        start = len(folder.rstrip("/"))
        if not path.startswith("/", start) or not (self.patterns or any(f"/{sign}" in path[start:] for sign in self.hidden)):
            return None
        while (end := path.find("/", start + 1)) >= 0:
            part = path[:end]
            if part not in self.decided:
                self.decided[part] = self.reason(part) if end > start + 1 else ""
            if self.decided[part]:
                return f"{part}/", self.decided[part]
            start = end
        reason = self.reason(path) if start + 1 < len(path) else ""
        return (path, reason) if reason else None


def compiled(pattern: str) -> tuple[str, re.Pattern[str], bool]:
    """A glob without slashes at its ends, what matches it, and whether it is of a path. Raises ConfigError where it is none."""
    bare = pattern.removeprefix("./").rstrip("/")
    try:
        return bare.lstrip("/"), re.compile(glob_translate(bare.lstrip("/"))), "/" in bare
    except ValueError as error:  # of glob_translate
        raise ConfigError(f"exclude: {pattern!r}: {error}") from None
