"""Starts a run, disturbs it as the plan says, and starts it again until it is complete; after each night the dataset is compared."""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
from collections import deque

import psutil

from bulkembed.dataset import paths
from scripts.chaos_rounds import damages
from scripts.chaos_rounds.kinds import LEASE_SECONDS, STALL_SECONDS, Kind
from scripts.chaos_rounds.material import Places
from scripts.chaos_rounds.outcome import Outcome, outcome_of
from scripts.chaos_rounds.record import Record
from scripts.chaos_rounds.scene import Damage, Scene, log_of

MAX_CALM_REFUSALS = 3  # of starts in a row that nothing disturbed: then the run does not end
MAX_MISSES = 3  # starts in which a fault found nothing to disturb; then it is left out
RIVAL_SECONDS = 300.0


class DisturbedRun:
    """One run of several nights. What it was disturbed by is in `record`."""

    def __init__(self, options: argparse.Namespace, scene: Scene, plan: deque[Kind]) -> None:
        self.options, self.scene, self.plan = options, scene, plan
        self.chance = random.Random(options.seed)  # noqa: S311
        self.record = Record()
        self.night = 0
        self.due = 0.0  # monotonic seconds: when the next fault is injected
        self.finished_shards = 0  # when the last fault was injected
        self.misses = 0  # starts in which the next fault found nothing to disturb
        self.driver_mb: list[float] = []  # samples of the driver's memory

    def complete(self) -> None:
        """Starts the command until it ends with 0. A start after one that was refused is not disturbed: does the run go on alone?"""
        n_refusals = 0  # in a row
        while True:
            line = self.one_start(is_calm=n_refusals > 0)
            if self.scene.driver.returncode == 0:
                return
            n_refusals = 0 if line is None else n_refusals + 1
            if n_refusals > 1 and line is not None and self.scene.damages:
                self.mend("refused", line)
            elif n_refusals > MAX_CALM_REFUSALS:
                raise SystemExit(f"chaos: the run does not end: {line}; see {log_of(self.scene.starts)}")

    def one_start(self, is_calm: bool) -> str | None:
        """Starts the run, and disturbs it until it ends. Returns the line of its refusal, None where it was complete or killed."""
        scene, first = self.scene, self.plan[0] if self.plan else None
        if not is_calm:
            self.inject_at_rest()
        scene.driver = scene.start()
        start, self.due = scene.starts, time.monotonic() + self.pause()
        while scene.driver.poll() is None:
            time.sleep(0.1)
            with contextlib.suppress(psutil.NoSuchProcess):
                self.driver_mb.append(psutil.Process(scene.driver.pid).memory_info().rss / 1e6)
            if not is_calm and self.is_due() and self.inject_next():
                self.due, first = time.monotonic() + self.pause(), None
        if first is not None and not is_calm:
            self.count_miss()
        for rival in scene.rivals.values():
            rival.wait(RIVAL_SECONDS)
        for number, rival in scene.rivals.items():
            self.record.ended(number, rival.returncode, scene.damages)
        scene.rivals.clear()
        line = self.record.ended(start, scene.driver.returncode, scene.damages)
        self.record.since_start.clear()
        return line

    def pause(self) -> float:
        """Random seconds until the next fault."""
        return self.chance.uniform(0.3, 1.7) * float(self.options.every)

    def is_due(self) -> bool:
        """Whether the next fault is to be injected. Those of `--plan` come with finished shards, others after random pauses."""
        moment = self.plan[0].moment if self.plan else "rest"
        if moment != "work":
            return moment != "rest"
        return self.n_shards() > self.finished_shards if self.options.plan else time.monotonic() >= self.due

    def n_shards(self) -> int:
        return len(self.scene.store.listed(paths.receipts_root(self.scene.where.output)))

    def inject_at_rest(self) -> None:
        """Injects the faults before a start that are next. One that finds nothing to disturb goes to the end of the plan."""
        while self.plan and self.plan[0].moment == "rest":
            if not self.inject_next():
                self.plan.rotate(-1)
                return

    def inject_next(self) -> bool:
        """Injects the fault that is next. False where it finds nothing to disturb."""
        kind, scene = self.plan[0], self.scene
        with kind.inject(scene) as what:
            if what is not None:
                self.record.fault(kind, self.night, scene.starts, what)
                if kind.seconds[1]:
                    scene.wait(self.chance.uniform(*kind.seconds))
        if what is not None:
            self.plan.popleft()
            self.misses, self.finished_shards = 0, self.n_shards() if self.options.plan else 0
        return what is not None

    def count_miss(self) -> None:
        """Leaves the next fault out where it found nothing to disturb in several starts."""
        self.misses += 1
        if self.misses >= MAX_MISSES:
            self.record.note(left_out=self.plan.popleft().name)
            self.misses = 0

    def one_night(self, documents: int, model: str) -> Outcome:
        """A night to its end. What `verify` says of a damaged object is believed: it is mended, and the run comes once more."""
        self.night += 1
        self.complete()
        outcome = outcome_of(self.scene.where, model, documents, self.options.model)
        while outcome.problems and self.standing_damages():
            self.mend("reported by verify", " ".join(outcome.problems))
            self.complete()
            outcome = outcome_of(self.scene.where, model, documents, self.options.model)
        self.standing_damages()
        if outcome.is_wrong:
            self.record.note(night=self.night, wrong=str(outcome))
        return outcome

    def standing_damages(self) -> list[Damage]:
        """The damages that are still there. The others were repaired by a run."""
        for damage in list(self.scene.damages):
            if not damages.stands(self.scene.store, damage):
                self.record.damaged(damage, "repaired", "")
                self.scene.damages.remove(damage)
        return self.scene.damages

    def mend(self, outcome: str, text: str) -> None:
        """Puts objects back as from a backup: those that a text names, or all where it names none."""
        standing = self.standing_damages()
        found = damages.named_in(text, standing)
        for damage in found or list(standing):
            self.record.damaged(damage, outcome if found else f"{outcome}, without a name", text)
            damages.mend(self.scene.store, [damage])
            self.scene.damages.remove(damage)

    def memory_of_quarters(self) -> list[int]:
        """The driver's peak memory in MB in the second and in the fourth quarter of all samples; the first has its start."""
        quarter = max(1, len(self.driver_mb) // 4)
        return [round(max(self.driver_mb[start : start + quarter])) for start in (quarter, 3 * quarter)]


def command_line(options: argparse.Namespace, places: Places, model: str) -> list[str]:
    """`bulkembed run` as a user would start it. A second run of the line waits for the first."""
    command = [sys.executable, "-m", "bulkembed", "run", "--source", places.source, "--output", places.output]
    command += ["--model", model, "--max-tokens", "64"]
    settings = {"shards.max_rows": options.shard_rows, "ray.layout": options.layout, "max_failures": 1_000_000}
    settings |= {"if_running": "wait", "lease_seconds": LEASE_SECONDS}
    if options.model == "simulated":
        settings |= {"engine.kind": "simulated", "engine.stall_seconds": STALL_SECONDS}
        settings["engine.tokens_per_second"] = options.tokens_per_second
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    return command
