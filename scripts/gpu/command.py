"""Measure everything that only a GPU can show. Starts a child for each group of rows and writes each row as it comes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bulkembed.config.sections import EngineConfig
from bulkembed.embedding import hardware
from bulkembed.embedding.environment import engine_environment
from scripts.gpu import plan, table, timeline, watch
from scripts.gpu.child import Task
from scripts.gpu.machine import describe_machine
from scripts.gpu.plan import Group, Result, Row

WORK_GB = 30  # that the models and the job's output take
FAST_FOLDER = Path("/dev/shm")  # noqa: S108 - memory: models are written and read at its speed
POLL_SECONDS = 0.5
ROWS_FILE = "rows.jsonl"
DRY_SECONDS = 0.2  # of a measurement that only shows that the code runs


@dataclass
class Check:
    """One run of the command."""

    device: str
    work: Path
    out: Path
    seconds: float  # of one measurement
    deadline: float  # unix seconds
    estimates: plan.Estimates = field(default_factory=plan.Estimates)
    results: dict[str, Result] = field(default_factory=dict)
    known: dict[str, Result] = field(default_factory=dict)  # measured on this host by an earlier run, which left them beside its models

    @property
    def dry(self) -> bool:
        return self.device == "cpu"

    def time_left(self) -> float:
        return self.deadline - time.time()

    def write(self, result: Result) -> None:
        """Keeps a result, with its share of the card's own rate, in the file and on the terminal."""
        result = table.with_share(result, self.all_known())
        self.results[result["row"]] = result
        for folder in (self.out, self.work):
            with (folder / ROWS_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
        print(table.line(result), flush=True)

    def all_known(self) -> dict[str, Result]:
        return self.known | {name: result for name, result in self.results.items() if not table.is_open(result)}

    def learn(self, result: Result, groups: list[Group], seconds: float) -> None:
        if not table.is_open(result):
            self.estimates.learn(plan.row_of(result["row"], groups), seconds)

    def patience(self, groups: list[Group]) -> float:
        """Seconds that the next row of a child may take, however much time is left."""
        row = next(plan.unfinished(groups, self.results), None)
        times, more = plan.ROW_LATE
        return min(max(0.0, self.time_left()), times * self.estimates.of(row) + more) if row else more

    def skip(self, row: Row, reason: str) -> None:
        self.write({"row": row.name, "skipped": reason})


def measure(check: Check, groups: list[Group]) -> None:
    """All groups, one child each; a dry run measures several in one, since each import of vLLM takes seconds."""
    for together in children(groups, check.dry):
        first = together[0].rows[0]
        needed = check.estimates.of(first)
        if not check.dry and check.time_left() < needed:
            for row in plan.unfinished(together, check.results):
                check.skip(row, f"needs about {needed:.0f} s, {max(0.0, check.time_left()):.0f} s are left")
            continue
        run_child(check, together)


def children(groups: list[Group], dry: bool) -> Iterator[list[Group]]:
    if not dry:
        yield from ([group] for group in groups)
        return
    while groups:
        shared = groups[0].dry_child
        yield [group for group in groups if group is groups[0] or (group.dry_child == shared and shared != "own")]
        groups = [group for group in groups[1:] if shared == "own" or group.dry_child != shared]


def run_child(check: Check, groups: list[Group]) -> None:
    """Writes the rows of a child as they come, and for those that do not come why."""
    watch.wait_until_unloaded()
    name, started = groups[0].name, time.time()
    log_path = check.out / f"{name}.log"
    task = Task(tuple(groups), check.device, check.work, check.out, check.seconds, check.deadline, started, figures(check.all_known()))
    reading, writing = os.pipe()
    with log_path.open("ab") as log, os.fdopen(reading, "rb") as answers:
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.gpu.child", str(writing), task.to_json()],
            env=environment(check, groups[0]),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(writing,),
            start_new_session=True,
        )
        os.close(writing)
        watching = watch.Watch(process.pid)
        try:
            reason = receive(check, groups, process, answers, watching)
        finally:
            end(process)
            watching.end()
    for row in plan.unfinished(groups, check.results):
        check.write({"row": row.name, "error": f"{reason}; see {log_path}"})


def figures(results: dict[str, Result]) -> dict[str, Result]:
    """Without lists and tables: an argument of a command has a greatest length."""
    return {name: {key: value for key, value in result.items() if not isinstance(value, list | dict)} for name, result in results.items()}


def receive(check: Check, groups: list[Group], process: subprocess.Popen[bytes], answers: IO[bytes], watching: watch.Watch) -> str:
    """Writes rows until there are no more. Returns why further rows do not come."""
    reason, began = "", time.monotonic()
    for result in lines_of(answers, process):
        if result is None and time.monotonic() - began > check.patience(groups):
            return "its time was over"
        if result is None:
            continue
        if "group" in result:
            reason = result["error"]
        if "row" in result:
            took = time.monotonic() - began
            check.learn(result, groups, took)
            check.write(result | {"took_s": round(took, 1)} | watching.since(began))
            began += took
    return reason or f"the process ended with {process.poll()}"


def lines_of(answers: IO[bytes], process: subprocess.Popen[bytes]) -> Iterator[Result | None]:
    """What a child says, until it is done or has ended; None now and then where it says nothing.

    The end of the pipe says nothing: processes that the child has forked may hold it open."""
    buffered = b""
    with selectors.DefaultSelector() as selector:
        selector.register(answers, selectors.EVENT_READ)
        while True:
            has_ended = process.poll() is not None
            data = os.read(answers.fileno(), 1 << 16) if selector.select(0 if has_ended else POLL_SECONDS) else b""
            *lines, buffered = (buffered + data).split(b"\n")
            for result in map(json.loads, lines):
                if "done" in result:
                    return
                yield result
            if has_ended and not data:
                return
            if not data:
                yield None


def environment(check: Check, group: Group) -> dict[str, str]:
    """What the child needs before it imports anything: for engines the environment that the job's own actors have."""
    log = (check.out / f"{group.name}.vllm.log").resolve()
    own = timeline.configure(log, check.work / f"{group.name}.logging.json") | {"GPU_CHECK_TIMELINE": str(log), "HF_HUB_OFFLINE": "1"}
    if group.kind == "engines":
        cpus = len(os.sched_getaffinity(0)) if check.dry else None
        own |= engine_environment(EngineConfig(), cpus)
        own |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"} if check.dry and group.dry_child == "multiprocessing" else {}
    return os.environ | own | ({} if check.dry else dict(group.env))


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a child with all that it started."""
    with contextlib.suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        process.stdin.close()


def work_folder(asked: Path | None) -> Path:
    """A folder for models: in memory where there is room, else the system's temporary folder."""
    if asked is not None:
        return asked
    room = FAST_FOLDER.is_dir() and shutil.disk_usage(FAST_FOLDER).free >= WORK_GB * 1e9
    return (FAST_FOLDER if room else Path(tempfile.gettempdir())) / "gpu-check"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/gpu_check", description=__doc__)
    parser.add_argument("--rows", default=",".join(plan.NAMES), help="which, with commas between them; default all: %(default)s")
    parser.add_argument("--minutes", type=float, default=8, help="that the command may take (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(".demo/gpu"), help="where rows.jsonl and the logs go (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="where the models go (30 GB); default: in memory where there is room")
    parser.add_argument("--seconds", type=float, default=6, help="of one measurement (default: %(default)s)")
    parser.add_argument("--commit", default="", help="what the rows are of; default: what git says")
    parser.add_argument("--dry", action="store_true", help="every row once with tiny shapes on the CPU")
    parser.add_argument("--table", type=Path, nargs="+", metavar="ROWS", help="print files of rows as Markdown, and measure nothing")
    asked = parser.parse_args()
    unknown = [name for name in asked.rows.split(",") if name not in plan.NAMES]
    if unknown:
        parser.error(f"--rows: no row is named {', '.join(unknown)}")
    return asked


def main() -> None:
    started = time.time()
    asked = arguments()
    if asked.table:
        print(table.markdown([table.read(path) for path in asked.table]))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    dry = asked.dry or not hardware.has_gpu()
    if dry and not asked.dry:
        print("no GPU here: every row runs once with tiny shapes on the CPU, and its figures mean nothing")
    work = (asked.work or Path(tempfile.mkdtemp(prefix="gpu-check-"))) if dry else work_folder(asked.work)
    for folder in (work, asked.out):
        folder.mkdir(parents=True, exist_ok=True)
    (asked.out / ROWS_FILE).unlink(missing_ok=True)
    seconds = DRY_SECONDS if dry else asked.seconds
    check = Check("cpu" if dry else "cuda", work, asked.out, seconds, started + 60 * asked.minutes, known=known_in(work))
    groups = plan.chosen(asked.rows.split(","))
    check.write({"row": "machine", "dry": dry} | describe_machine(asked.commit))
    try:
        measure(check, groups)
    finally:
        report_unfinished(check, groups)
        if dry and asked.work is None:
            shutil.rmtree(work, ignore_errors=True)


def known_in(work: Path) -> dict[str, Result]:
    rows = work / ROWS_FILE
    return {result["row"]: result for result in (table.read(rows) if rows.exists() else []) if not table.is_open(result)}


def report_unfinished(check: Check, groups: list[Group]) -> None:
    for row in plan.unfinished(groups, check.results):
        check.skip(row, "the command was ended before")
    print(f"\n{table.markdown([list(check.known.values()), list(check.results.values())])}\n\nrows: {check.out / ROWS_FILE}", flush=True)


if __name__ == "__main__":
    main()
