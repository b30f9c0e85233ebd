"""A Ray cluster of several nodes on this host, with GPUs that are numbers only, and a driver that is connected to it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import PATIENCE, ROOT
from tests.support.runs import OF_RAYS_PROCESSES
from tests.support.small_hub import COMMIT

OBJECT_STORE_BYTES = 80 << 20


@dataclass
class Driver:
    process: subprocess.Popen[str]

    def ask(self, order: str, **values: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"order": order, "values": values}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next line of JSON; others are what Ray prints."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise AssertionError("the driver has ended")

    def result(self) -> dict[str, Any]:
        while "exit_code" not in (answer := self.answer()):
            pass
        return answer

    def done(self, order: str, **values: Any) -> dict[str, Any]:
        self.ask(order, **values)
        return self.result()


@contextmanager
def driver(address: str, environment: dict[str, str]) -> Iterator[Driver]:
    command = [sys.executable, "-m", "tests.support.cluster_driver", address]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | environment
    ) as process:
        try:
            yield Driver(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(timeout=PATIENCE)


def hub_cache(folder: Path, model: str, *names: str) -> dict[str, str]:
    """The environment of a host whose hub cache holds the folder `model` under these names, and which fetches nothing."""
    for name in names:
        kept = folder / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(model, kept / "snapshots" / COMMIT)
        (kept / "refs").mkdir()
        (kept / "refs" / "main").write_text(COMMIT)
    return {"HF_HOME": str(folder), "HF_HUB_OFFLINE": "1"}


def node(environment: dict[str, str], **resources: float) -> dict[str, Any]:
    """Arguments of `Cluster.add_node`. Its processes have the environment that actors need, and start the sooner for it."""
    return {"env_vars": OF_RAYS_PROCESSES | environment, "object_store_memory": OBJECT_STORE_BYTES, **resources}
