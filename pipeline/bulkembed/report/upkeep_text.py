"""What gc and forget do as text."""

from __future__ import annotations

from collections.abc import Sequence

from bulkembed.dataset.gc import GcPlan
from bulkembed.durations import duration_text
from bulkembed.report.formatting import counted, lines, size
from bulkembed.runs.forget import Forgotten


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
        rows.append(("kept", f"{counted(count, 'object')} of line {line}, where a run is under way"))
    return "\n".join([plan.output, lines(rows + more)])


def numbers_text(numbers: Sequence[int]) -> str:
    """`snapshots 1, 2, 5`. Of many, the first ten and a count."""
    if not numbers:
        return "no snapshot"
    shown = ", ".join(map(str, numbers[:10]))
    more = f" and {len(numbers) - 10:,} more" if len(numbers) > 10 else ""
    return f"snapshot{'s' if len(numbers) > 1 else ''} {shown}{more}"


def forgotten_text(output: str, done: Forgotten) -> str:
    rows = [
        ("ids", f"{done.ids:,}: {done.found:,} found, {done.not_found:,} not found; all of them are on the list of erased ids"),
        ("left", f"{counted(done.documents, 'document')}; {numbers_text(done.published)} published without them"),
        ("expired", f"{numbers_text(done.expired)}, which held rows of these ids"),
    ]
    if done.expired:
        rows.append(("storage", f"`bulkembed gc --output {output}` frees it after its grace, and with --grace 0 now"))
    rows += [("kept", f"snapshot {number} stays in storage until its tag goes: --untag {name}") for name, number in done.tagged.items()]
    return "\n".join([output, lines(rows)])


def remembered_text(output: str, ids: int, listed: int) -> str:
    return "\n".join([output, lines([("ids", f"{ids:,}: {listed:,} were on the list of erased ids, and are not any more")])])
