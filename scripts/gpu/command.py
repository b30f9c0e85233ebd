"""Measures all that only a GPU can show. Each group of rows has a child process, and each row is written as soon as it is measured."""

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

WORK_GB = 30  # of the models and the job's output
FAST_FOLDER = Path("/dev/shm")  # noqa: S108 - memory: models are written and read at its speed
POLL_SECONDS = 0.5
ROWS_FILE = "rows.jsonl"
DRY_SECONDS = 0.2  # of a measurement in a dry run


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
    known: dict[str, Result] = field(default_factory=dict)  # rows of an earlier run on this host, which lie beside its models

    @property
    def dry(self) -> bool:
        return self.device == "cpu"

    def time_left(self) -> float:
        return self.deadline - time.time()

    def write(self, result: Result) -> None:
        """Adds its share of the GPU's own rate to a result, writes it to the files and prints it."""
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
        """Seconds that the next row of a child may take, however much time is left. The estimates are of a GPU: a dry run has its time."""
        if self.dry:
            return max(0.0, self.time_left())
        row = next(plan.unfinished_rows(groups, self.results), None)
        factor, seconds = plan.ROW_PATIENCE
        return min(max(0.0, self.time_left()), factor * self.estimates.of(row) + seconds) if row else seconds

    def skip(self, row: Row, reason: str) -> None:
        self.write({"row": row.name, "skipped": reason})


def measure(check: Check, groups: list[Group]) -> None:
    """Measures all groups, one child each. A dry run measures several in one child, since each import of vLLM takes seconds."""
    for together in children(groups, check.dry):
        first = together[0].rows[0]
        needed = check.estimates.of(first)
        if not check.dry and check.time_left() < needed:
            for row in plan.unfinished_rows(together, check.results):
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
    """Writes the rows of a child as they arrive. Rows that do not arrive are written with the reason."""
    watch.wait_until_unloaded()
    name, started = groups[0].name, time.time()
    log_path = check.out / f"{name}.log"
    task = Task(tuple(groups), check.device, check.work, check.out, check.seconds, check.deadline, started, scalars(check.all_known()))
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
    for row in plan.unfinished_rows(groups, check.results):
        check.write({"row": row.name, "error": f"{reason}; see {log_path}"})


def scalars(results: dict[str, Result]) -> dict[str, Result]:
    """Results without lists and tables, since an argument of a command has a maximal length."""
    return {name: {key: value for key, value in result.items() if not isinstance(value, list | dict)} for name, result in results.items()}


def receive(check: Check, groups: list[Group], process: subprocess.Popen[bytes], answers: IO[bytes], watching: watch.Watch) -> str:
    """Writes rows until there are no more. Returns the reason why further rows do not arrive."""
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
    """Results of a child until it is done or has ended. None from time to time while it sends nothing.

    The end of the pipe is no sign of the child's end, since processes that the child has forked may hold it open."""
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
    """The environment of a child. For engines it is that of the job's own actors."""
    log = (check.out / f"{group.name}.vllm.log").resolve()
    own = timeline.configure(log, check.work / f"{group.name}.logging.json") | {"GPU_CHECK_TIMELINE": str(log), "HF_HUB_OFFLINE": "1"}
    if group.kind == "engines":
        cpus = len(os.sched_getaffinity(0)) if check.dry else None
        own |= engine_environment(EngineConfig(), cpus)
        own |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"} if check.dry and group.dry_child == "multiprocessing" else {}
    return os.environ | own | ({} if check.dry else dict(group.env))


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a child and all that it started."""
    with contextlib.suppress(ProcessLookupError):  # all have ended already
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        process.stdin.close()


def work_folder(given: Path | None) -> Path:
    """The folder of the models: in memory where there is room, else in the system's temporary folder."""
    if given is not None:
        return given
    room = FAST_FOLDER.is_dir() and shutil.disk_usage(FAST_FOLDER).free >= WORK_GB * 1e9
    return (FAST_FOLDER if room else Path(tempfile.gettempdir())) / "gpu-check"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/gpu_check", description=__doc__)
    parser.add_argument("--rows", default=",".join(plan.NAMES), help="rows, separated by commas (default: all, %(default)s)")
    parser.add_argument("--minutes", type=float, default=8, help="minutes that the command may take (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(".demo/gpu"), help="folder of rows.jsonl and the logs (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder of the models, 30 GB (default: in memory where there is room)")
    parser.add_argument("--seconds", type=float, default=6, help="seconds of one measurement (default: %(default)s)")
    parser.add_argument("--commit", default="", help="commit to write into the rows (default: that of the working tree)")
    parser.add_argument("--dry", action="store_true", help="run every row once with tiny shapes on the CPU")
    parser.add_argument("--table", type=Path, nargs="+", metavar="ROWS", help="print these files of rows as Markdown, and measure nothing")
    options = parser.parse_args()
    unknown = [name for name in options.rows.split(",") if name not in plan.NAMES]
    if unknown:
        parser.error(f"--rows: no row is named {', '.join(unknown)}")
    return options


def main() -> None:
    started = time.time()
    options = parse_arguments()
    if options.table:
        print(table.markdown([table.read(path) for path in options.table]))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    dry = options.dry or not hardware.has_gpu()
    if dry and not options.dry:
        print("no GPU: every row runs once with tiny shapes on the CPU, and its figures mean nothing")
    work = (options.work or Path(tempfile.mkdtemp(prefix="gpu-check-"))) if dry else work_folder(options.work)
    for folder in (work, options.out):
        folder.mkdir(parents=True, exist_ok=True)
    (options.out / ROWS_FILE).unlink(missing_ok=True)
    seconds = DRY_SECONDS if dry else options.seconds
    check = Check("cpu" if dry else "cuda", work, options.out, seconds, started + 60 * options.minutes, known=read_known(work))
    groups = plan.groups_with(options.rows.split(","))
    check.write({"row": "machine", "dry": dry} | describe_machine(options.commit))
    try:
        measure(check, groups)
    finally:
        report_unfinished(check, groups)
        if dry and options.work is None:
            shutil.rmtree(work, ignore_errors=True)


def read_known(work: Path) -> dict[str, Result]:
    """Rows that an earlier run has measured on this host."""
    rows = work / ROWS_FILE
    return {result["row"]: result for result in (table.read(rows) if rows.exists() else []) if not table.is_open(result)}


def report_unfinished(check: Check, groups: list[Group]) -> None:
    for row in plan.unfinished_rows(groups, check.results):
        check.skip(row, "the command ended before it")
    print(f"\n{table.markdown([list(check.known.values()), list(check.results.values())])}\n\nrows: {check.out / ROWS_FILE}", flush=True)


if __name__ == "__main__":
    main()
