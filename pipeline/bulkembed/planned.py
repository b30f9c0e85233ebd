"""What a run would do, as people import it by way of `api`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bulkembed.config.run_config import RunConfig
from bulkembed.records import Failure
from bulkembed.report import run_text
from bulkembed.runs import estimate
from bulkembed.runs.estimate import Estimate, Prices
from bulkembed.runs.job import Job
from bulkembed.runs.night import NightCounts
from bulkembed.runs.plans import RunPlan, read_source_in_types
from bulkembed.source.objects import LeftOutNames


@dataclass(frozen=True)
class Plan:
    """What a run would do. `print(plan)` shows it as `bulkembed plan` does."""

    job: Job
    work: RunPlan

    def __str__(self) -> str:
        return run_text.plan_text(self.job, self.work)

    @property
    def config(self) -> RunConfig:
        """The configuration that was planned."""
        return self.job.cfg

    @property
    def fingerprint(self) -> str | None:
        """Names the folder of the run's data. None where int8 ranges must be measured first: it follows from them."""
        return None if self.job.needs_int8_ranges else self.job.fingerprint

    @property
    def objects(self) -> int:
        return len(self.work.objects)

    @property
    def parent(self) -> int | None:
        """Number of the snapshot that the run would follow. None where it is the first of its line."""
        return self.work.base.number or None

    @property
    def is_exact(self) -> bool:
        """Whether all of the source was read. Otherwise at most what is pending is new, and `night` says nothing."""
        return self.work.night is not None

    @property
    def night(self) -> NightCounts:
        """Documents by what would happen to them."""
        return self.work.night.counts if self.work.night else NightCounts()

    @property
    def shards_pending(self) -> int:
        return len(self.work.pending)

    @property
    def rows_pending(self) -> int:
        """Documents that go to the engine."""
        return self.work.rows_pending

    @property
    def left_out(self) -> list[LeftOutNames]:
        """Names below the source that are not read, by reason."""
        return self.work.left_out

    @property
    def failures(self) -> list[Failure]:
        """Objects that cannot be read. A run embeds the others, and publishes no snapshot unless `skip_unreadable` is set."""
        return self.work.failures

    @property
    def held_back(self) -> str | None:
        """Why `run` would raise HeldBack: too many documents would leave the dataset."""
        return self.work.held_back

    def exact(self) -> Plan:
        """The plan with all of the source read, however much that is. It writes nothing, and keeps some 60 bytes of each new document."""
        if self.work.night is not None:
            return self
        return Plan(*read_source_in_types(self.job, replace(self.work, pending=[], failures=[*self.work.listing.failures]), None))

    def estimate(self, prices: Prices | None = None) -> Estimate:
        """Tokens, vectors and rejects of the pending rows; with `prices` also time and cost. Reads a sample of the source.

        Raises ConfigError where a price is none, BulkembedError where no pending row can be read."""
        prices = prices or Prices()
        prices.check()
        known = estimate.estimate(self.job, self.work.pending) if self.work.pending else estimate.NOTHING
        return replace(known, prices=prices)
