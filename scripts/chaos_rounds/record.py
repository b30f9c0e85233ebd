"""What was injected, and how the starts of the run ended; one line of JSON for each, in a log."""

from __future__ import annotations

import json
import re
import signal
import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from scripts.chaos_rounds.kinds import BY_NAME, Kind
from scripts.chaos_rounds.material import WORK
from scripts.chaos_rounds.scene import Damage, log_of

OURS = {-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM}  # exit codes of drivers that were killed
LINE = "bulkembed: "  # what the line of an error begins with


class Record:
    """Counts by kind of fault."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.faults: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()  # starts that ended in a line that the kind explains
        self.unexpected: list[str] = []  # lines of other refusals
        self.damages: Counter[str] = Counter()  # outcomes
        self.tracebacks: list[str] = []  # logs that hold one
        self.since_start: list[Kind] = []  # since the start before
        self.log = (WORK / "faults.jsonl").open("w", encoding="utf-8")

    def note(self, **what: Any) -> None:
        self.log.write(json.dumps({"seconds": round(time.monotonic() - self.began, 1), **what}) + "\n")
        self.log.flush()

    def fault(self, kind: Kind, night: int, start: int, what: str) -> None:
        self.faults[kind.name] += 1
        self.since_start.append(kind)
        self.note(fault=kind.name, night=night, start=start, what=what)

    def ended(self, start: int, code: int, damages: Sequence[Damage]) -> str | None:
        """How a start ended: the line of its refusal, or None where it was complete, or was killed. `damages`: that nobody has mended."""
        text = log_of(start).read_text(encoding="utf-8", errors="replace")
        if "Traceback (most recent call last)" in text:
            self.tracebacks.append(log_of(start).name)
        lines = [line for line in text.splitlines() if line.startswith(LINE)]
        line = lines[-1].removeprefix(LINE) if lines else f"exit code {code} without a line"
        is_refusal = code not in OURS | {0}
        self.note(start=start, code=code, after=[kind.name for kind in self.since_start], line=line if is_refusal else "")
        if is_refusal:
            self.explain(line, {damage.kind for damage in damages})
        return line if is_refusal else None

    def explain(self, line: str, damaged: Collection[str]) -> None:
        """Counts a refusal by the kinds that explain its line. `damaged`: kinds of earlier damages."""
        kinds = {kind.name: kind for kind in [*self.since_start, *(BY_NAME[name] for name in damaged)]}.values()
        explain = [kind.name for kind in kinds if kind.says and re.search(kind.says, line)]
        self.refusals.update(explain)
        if not explain:
            self.unexpected.append(line)

    def damaged(self, damage: Damage, outcome: str, line: str) -> None:
        """What became of a damaged object."""
        self.damages[outcome] += 1
        self.note(damaged=damage.uri, outcome=outcome, line=line)

    def result(self) -> dict[str, Any]:
        """Counts by kind, as JSON."""
        kinds = {kind: {"faults": n, "refusals": self.refusals[kind]} for kind, n in sorted(self.faults.items())}
        return {"kinds": kinds, "damages": dict(self.damages), "unexpected": self.unexpected, "tracebacks": self.tracebacks}
