"""The software bill of materials names what the lock pins."""

from __future__ import annotations

import json
import re
import subprocess

from scripts.samples import materials
from tests.support.processes import ROOT


def test_the_bill_names_every_package_of_the_lock_once_with_its_hashes() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    printed = [subprocess.run([ROOT / "scripts" / "sbom"], capture_output=True, check=True).stdout for _ in range(2)]
    assert printed[0] == printed[1]
    bill = json.loads(printed[0])
    assert (bill["bomFormat"], bill["specVersion"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "1.6", "bulkembed")
    named = {each["purl"]: each for each in bill["components"]}
    assert len(named) == len(bill["components"]) == lock.count("==") + 1, "torch is installed beside the lock"
    assert named.keys() >= {f"pkg:pypi/{name}@{version}" for name, version in re.findall(r"^([a-z0-9-]+)==([0-9.]+) ", lock, re.MULTILINE)}
    assert any(each["name"] == "torch" for each in bill["components"])
    hashes = [each["content"] for found in named.values() for ref in found.get("externalReferences", ()) for each in ref["hashes"]]
    assert sorted(hashes) == sorted(re.findall("sha256:([0-9a-f]{64})", lock))


def test_names_and_versions_are_as_in_package_urls() -> None:
    made = materials.component(materials.Package("Typing_Extensions", "4.1+cpu", []))
    assert made["purl"] == "pkg:pypi/typing-extensions@4.1%2Bcpu"
    assert "externalReferences" not in made
