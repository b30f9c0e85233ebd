"""requirements.lock -> a software bill of materials, as CycloneDX 1.6 JSON: every package that is installed, with its hashes.

The same lock gives the same bytes: there is no time in it, and its serial number is made of its contents.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import bulkembed

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?P<rest>(?:.*\\\n)*.*)$", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
TORCH = re.compile(r"torch==(\S+?)[\"'\s]")  # scripts/setup installs it: its index is not the lock's
NAMESPACE = uuid.UUID("6f1c6a0e-54f1-5d0e-9e0c-6a2b9c8d7e10")


class Package(NamedTuple):
    name: str
    version: str
    hashes: list[str]  # SHA-256 of each file of this version, in hexadecimal


def packages(lock: str, setup: str) -> Iterator[Package]:
    """The packages of a lock file, and the torch of scripts/setup."""
    for match in PACKAGE.finditer(lock):
        yield Package(match["name"], match["version"], HASH.findall(match["rest"]))
    torch = TORCH.search(setup)
    if torch:
        yield Package("torch", torch[1], [])


def component(package: Package) -> dict[str, Any]:
    name = re.sub(r"[-_.]+", "-", package.name).lower()
    address = f"pkg:pypi/{name}@{package.version.replace('+', '%2B')}"
    described: dict[str, Any] = {"type": "library", "bom-ref": address, "name": name, "version": package.version, "purl": address}
    if package.hashes:
        hashes = [{"alg": "SHA-256", "content": each} for each in package.hashes]
        described["externalReferences"] = [{"type": "distribution", "url": f"https://pypi.org/simple/{name}/", "hashes": hashes}]
    return described


def bill(lock: str, setup: str) -> dict[str, Any]:
    """The bill of materials of what `scripts/setup` installs."""
    components = [component(package) for package in packages(lock, setup)]
    version = bulkembed.__version__
    root = f"pkg:pypi/bulkembed@{version.replace('+', '%2B')}"
    subject = {"type": "application", "bom-ref": root, "name": "bulkembed", "version": version, "purl": root}
    body = {"metadata": {"component": subject}, "components": components}
    serial = uuid.uuid5(NAMESPACE, json.dumps(body, sort_keys=True))
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1} | body


def main() -> None:
    made = bill((ROOT / "requirements.lock").read_text(encoding="utf-8"), (ROOT / "scripts" / "setup").read_text(encoding="utf-8"))
    json.dump(made, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
