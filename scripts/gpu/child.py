"""A child of the command: it measures groups of rows and sends each row as soon as it is measured.

    python -m scripts.gpu.child ANSWERS TASK

ANSWERS is the file descriptor for the rows, one JSON line each. TASK is a `Task` as JSON."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from bulkembed.embedding import hardware
from scripts.gpu.plan import Group, Result, Row
from scripts.samples.random_qwen3 import SHAPES


@dataclass(frozen=True)
class Task:
    """What a child measures, and with what."""

    groups: tuple[Group, ...]
    device: str  # "cuda" or "cpu"
    work: Path  # models and corpora, on a fast local disk
    out: Path  # results and logs
    seconds: float  # of one measurement
    deadline: float  # unix seconds
    started: float  # unix seconds: when the child was started
    known: dict[str, Result]  # rows of earlier children

    @property
    def dry(self) -> bool:
        return self.device == "cpu"

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"work": str(self.work), "out": str(self.out)})

    def sizes(self, shape: str) -> dict[str, int]:
        return SHAPES["tiny" if self.dry else shape]

    def folder(self, shape: str) -> Path:
        return self.work / f"Qwen3-Embedding-random-{shape}"

    def time_left(self) -> float:
        return self.deadline - time.time()

    @property
    def dtype(self) -> Literal["bfloat16", "float32"]:
        return hardware.engine_dtype(None)

    @property
    def max_tokens(self) -> int:
        return 512 if self.dry else 32_768

    @property
    def step_tokens(self) -> int:
        return 1024 if self.dry else 32_768

    @property
    def call_tokens(self) -> int:
        return 2048 if self.dry else 131_072


@dataclass(frozen=True)
class RowInput:
    """The input of a row that needs no engine in its child."""

    task: Task
    group: Group


def task_of(text: str) -> Task:
    fields = json.loads(text)
    groups = tuple(Group(**(group | {"rows": tuple(Row(**row) for row in group["rows"])})) for group in fields["groups"])
    return Task(**(fields | {"groups": groups, "work": Path(fields["work"]), "out": Path(fields["out"])}))


def measure(group: Group, task: Task) -> Iterator[Result]:
    """Rows of a group, each as soon as it is measured. A row that fails says why."""
    module = importlib.import_module(f"scripts.gpu.{group.kind}")
    prepared = module.prepare(group, task)
    for row in group.rows:
        if task.time_left() < row.seconds and not task.dry and row is not group.rows[0]:
            yield {"row": row.name, "skipped": f"needs about {row.seconds:.0f} s, {max(0, task.time_left()):.0f} s are left"}
            continue
        try:
            result = module.ROWS[row.name](prepared)
        except Exception as error:  # noqa: BLE001 - the next row may do well
            traceback.print_exc()
            yield {"row": row.name, "error": one_line(error)}
        else:
            yield {"row": row.name, "shape": group.shape} | result


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 400 else text[:100] + ' ... ' + text[-300:]}"


def answers(task: Task) -> Iterator[Result]:
    for group in task.groups:
        try:
            yield from measure(group, task)
        except Exception as error:  # noqa: BLE001 - the next group may do well
            traceback.print_exc()
            yield {"group": group.name, "error": one_line(error)}


def end_with_parent() -> None:
    """Ends this process and all that it started when the parent ends. The parent holds the other end of stdin."""

    def watch() -> None:
        # sys.stdin has a lock, which this thread would hold. A forked process closes sys.stdin, and would wait for the lock for ever.
        while os.read(0, 1024):
            continue
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main(descriptor: str, text: str) -> None:
    end_with_parent()
    task = task_of(text)
    out: TextIO
    with os.fdopen(int(descriptor), "w", encoding="utf-8") as out:
        for result in answers(task):
            out.write(json.dumps(result, default=to_python) + "\n")
            out.flush()
        out.write(json.dumps({"done": True}) + "\n")
    sys.stdout.flush()
    os._exit(0)  # engines take seconds to shut down; the parent ends their processes


def to_python(value: Any) -> Any:
    """A numpy value as a Python value."""
    return value.item() if hasattr(value, "item") else str(value)


if __name__ == "__main__":
    main(*sys.argv[1:])
