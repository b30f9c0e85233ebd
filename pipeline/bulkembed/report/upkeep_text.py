"""What gc does as text."""

from __future__ import annotations

from collections.abc import Sequence

from bulkembed.dataset.gc import GcPlan
from bulkembed.durations import duration_text
from bulkembed.report.formatting import lines, size


def gc_plan_text(plan: GcPlan) -> str:
    """What gc would do."""
    held_back = [("held back", plan.held_back)] if plan.held_back is not None else []
    return gc_text(plan, "to expire", "to delete", held_back)


def gc_done_text(plan: GcPlan) -> str:
    """What gc has done."""
    return gc_text(plan, "expired now", "deleted", [])


def gc_text(plan: GcPlan, expired: str, deleted: str, more: list[tuple[str, str]]) -> str:
    rows = [(expired, numbers_text([record.number for record in plan.expiring]))]
    if plan.waiting:
        rows.append(("waiting", f"{numbers_text(plan.waiting)}; files stay for {duration_text(plan.rules.grace)} or longer"))
    for (reason, folder), (objects, count) in plan.totals.items():
        rows.append((deleted, f"{objects:,} x {folder}, {size(count)}: of {reason}"))
    if not plan.totals:
        rows.append((deleted, "nothing"))
    for line, count in sorted(plan.found.busy.items()):
        rows.append(("kept", f"{count:,} objects of line {line}, where a run is under way"))
    return "\n".join([plan.output, lines(rows + more)])


def numbers_text(numbers: Sequence[int]) -> str:
    """`snapshots 1, 2, 5`. Of many, the first ten and a count."""
    if not numbers:
        return "no snapshot"
    shown = ", ".join(map(str, numbers[:10]))
    more = f" and {len(numbers) - 10:,} more" if len(numbers) > 10 else ""
    return f"snapshot{'s' if len(numbers) > 1 else ''} {shown}{more}"
