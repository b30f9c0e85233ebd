"""The estimate of a plan as text."""

from __future__ import annotations

from collections.abc import Callable

from bulkembed.report.formatting import counted, duration, lines, size
from bulkembed.runs.estimate import Estimate, Interval, Prices, cheaper
from bulkembed.runs.job import Job
from bulkembed.runs.plans import RunPlan


def estimate_text(job: Job, plan: RunPlan, expected: Estimate) -> str:
    """Tokens and size of the vectors that a run would make, with hours and money by the prices of the estimate."""
    if not plan.pending:
        return lines([("estimate", "nothing is to be embedded")])
    vectors = size(expected.vectors * sum(form.stored_bytes for form in job.recipe.row_schema.vectors))
    precision, where = ("about", f"{expected.places} places all over the source") if expected.places else ("exactly", "all of it")
    rows = [
        ("sample", f"{expected.rows_read:,} of {plan.rows_pending:,} rows, {where}"),
        ("estimate", f"{precision} {amount(expected.tokens, whole)} tokens, {vectors} of vectors; nothing written"),
    ]
    if expected.rejects:
        rows.append(("rejects", f"{'about ' if expected.places else ''}{counted(round(expected.rejects), 'row')}"))
    if expected.unread:
        rows.append(("unread", f"{counted(len(expected.unread), 'part')} of the sample, left out: {expected.unread[0]}"))
    return lines(rows + price_rows(expected.tokens, expected.prices))


def price_rows(tokens: Interval, prices: Prices) -> list[tuple[str, str]]:
    rows = []
    cluster_cost, api_cost = prices.cluster(tokens), prices.api(tokens)
    seconds = prices.seconds(tokens)
    if seconds is not None:
        rows.append(("time", f"{amount(seconds, duration)} at {prices.tokens_per_second:,.0f} tokens/s"))
    if cluster_cost is not None:
        rows.append(("cost", f"{amount(cluster_cost, money)} at {prices.price_per_hour:,g} an hour"))
    if api_cost is not None:
        verdict = "" if cluster_cost is None else f": {cheaper(cluster_cost, api_cost)}"
        rows.append(("api", f"{amount(api_cost, money)} at {prices.api_price:,g} a million tokens{verdict}"))
    return rows


def amount(interval: Interval, text: Callable[[float], str]) -> str:
    """`12 (95 %: 10 to 14)`, or `12` where the number is known."""
    bounds = f" (95 %: {text(interval.low)} to {text(interval.high)})" if interval.low < interval.high else ""
    return f"{text(interval.best)}{bounds}"


def whole(number: float) -> str:
    return f"{round(number):,}"


def money(number: float) -> str:
    return f"{number:,.2f}" if number >= 1 else f"{number:.2g}"
