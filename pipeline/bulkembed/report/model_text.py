"""Checks of a model, and measured settings of its engine, as text."""

from __future__ import annotations

from bulkembed.config.recipe import VectorKey
from bulkembed.embedding.preflight import Check
from bulkembed.records import Model
from bulkembed.tuning.search import Trial


def checks_text(model: Model, key: VectorKey, engine: str, checks: list[Check]) -> str:
    """A table: whether each check passed, its name, and its measurement."""
    head = f"{model.name}: {model.pooling} pooling, {model.width} dims, {engine} in {key.engine_dtype}, at most {key.max_tokens:,} tokens"
    width = max(len(check.name) for check in checks)
    return "\n".join([head, *(f"  {'ok  ' if check.passed else 'FAIL'}  {check.name:<{width}}  {check.detail}" for check in checks)])


def trial_text(trial: Trial, base: float) -> str:
    """One line: tokens per second, and their ratio to `base`."""
    if not trial.rate:
        return f"  {'failed':>9}        {trial.name}: {trial.problem}"
    return f"  {trial.rate:>9,.0f}  {trial.rate / base:>5.2f}  {trial.name}"


def tuned_text(trials: list[Trial], first: Trial, best: Trial, untried: list[str]) -> str:
    """The fastest settings, and what could not be tried."""
    text = f"fastest: {best.name}, {best.rate:,.0f} tokens/s ({best.rate / first.rate:.2f} times the configured settings)"
    if "dtype" in best.changes:
        text += "\nanother dtype makes other vectors: a run would embed everything again"
    if untried:
        longest = max(trial.seconds for trial in trials)
        text += f"\nnot tried, as the budget was spent (a setting took up to {longest:.0f} s; --budget gives more): {', '.join(untried)}"
    return text
