"""How many tokens a plan has to embed: counted where that is little, else estimated from places drawn all over the source."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from bulkembed.config.recipe import VectorKey
from bulkembed.errors import BulkembedError, ConfigError
from bulkembed.records import Counts
from bulkembed.runs import stages
from bulkembed.runs.job import Job
from bulkembed.shards import Shard

PLACES, MIN_PLACES = 64, 8
PLACE_ROWS, PLACE_BYTES = 1024, 256 << 10  # that are read and tokenized at a place
MAX_SECONDS = 10.0  # after which no further place is begun, once there are MIN_PLACES
THREADS = 4  # a place waits for the store, and may decode a whole row group
ROW_BYTES = 16  # of weight beside a row's text: for its special tokens, and for rows of which no size is known
TOKEN_BYTES = 4  # of text, about
MIN_ERROR = 0.005  # of an estimate: rare documents of another kind are not in every sample

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A number that is not known exactly, and the bounds that hold it with 95 %."""

    low: float
    best: float
    high: float

    def times(self, factor: float) -> Interval:
        return Interval(self.low * factor, self.best * factor, self.high * factor)


@dataclass(frozen=True)
class Prices:
    """What a user knows of a cluster and of an API that embeds too; None where not said. In any one currency."""

    tokens_per_second: float | None = None  # of the whole cluster
    price_per_hour: float | None = None  # of the whole cluster
    api_price: float | None = None  # of a million tokens

    def check(self) -> None:
        """Raises ConfigError that names the flag."""
        for name, value in vars(self).items():
            if value is not None and not (0 < value < math.inf or (value == 0 and name != "tokens_per_second")):
                raise ConfigError(f"--{name.replace('_', '-')}: expected a positive number (got {value:g})")
        if self.price_per_hour is not None and self.tokens_per_second is None:
            raise ConfigError("--price-per-hour: needs --tokens-per-second, which says how many hours")

    def seconds(self, tokens: Interval) -> Interval | None:
        return None if self.tokens_per_second is None else tokens.times(1 / self.tokens_per_second)

    def cluster(self, tokens: Interval) -> Interval | None:
        seconds = self.seconds(tokens)
        return None if seconds is None or self.price_per_hour is None else seconds.times(self.price_per_hour / 3600)

    def api(self, tokens: Interval) -> Interval | None:
        return None if self.api_price is None else tokens.times(self.api_price / 1e6)


def cheaper(cluster: Interval, api: Interval) -> str:
    """Says which costs less, unless the two intervals meet. An API counts tokens in its own way, so close amounts decide nothing."""
    if cluster.high < api.low:
        return "this cluster is cheaper"
    return "the API is cheaper" if api.high < cluster.low else "too close to say which is cheaper"


@dataclass(frozen=True)
class Estimate:
    tokens: Interval
    vectors: float
    rejects: float
    rows_read: int
    places: int  # 0 where all was counted
    unread: list[str]  # why places could not be read
    prices: Prices = Prices()

    @property
    def seconds(self) -> Interval | None:
        return self.prices.seconds(self.tokens)

    @property
    def cost(self) -> Interval | None:
        """Price of the cluster for the run, in the currency of the prices."""
        return self.prices.cluster(self.tokens)

    @property
    def api_cost(self) -> Interval | None:
        return self.prices.api(self.tokens)


NOTHING = Estimate(Interval(0, 0, 0), 0, 0, 0, 0, [])


def estimate(job: Job, pending: Sequence[Shard], seed: int = 0) -> Estimate:
    """Tokens, vectors and rejects of the pending shards. The same plan gives the same estimate.

    Raises BulkembedError where none of the shards can be read."""
    deadline = time.monotonic() + MAX_SECONDS
    rows, text_bytes = sum(shard.rows for shard in pending), sum(shard.text_bytes for shard in pending)
    if len(pending) <= PLACES and rows <= PLACES * PLACE_ROWS and text_bytes <= PLACES * PLACE_BYTES:
        counts = count(job, pending, deadline)
        if None not in counts:
            return exact_estimate([outcome for outcome in counts if outcome is not None])
    random = np.random.default_rng(seed)
    ordered = in_strata(pending)
    sizes = weights(ordered, job.recipe.vector_key)
    where, fractions = draw(sizes, PLACES, random)
    places = [place(ordered[shard], fraction) for shard, fraction in zip(where, fractions, strict=True)]
    # The order is random: where time ends early, the places read still lie all over the source. A place drawn twice is read once.
    order = random.permutation(PLACES).tolist()
    distinct = list(dict.fromkeys(places[number] for number in order))
    outcomes = dict(zip(distinct, count(job, distinct, deadline), strict=True))
    read = list(takewhile(lambda number: outcomes[places[number]] is not None, order))
    if len(read) == PLACES and sum(part.rows for part in distinct) == rows:
        return exact_estimate([outcome for outcome in outcomes.values() if outcome is not None])
    by_place = [outcomes[places[number]] if number in read else None for number in range(PLACES)]
    density = np.array([ordered[shard].rows / sizes[shard] for shard in where])
    return sample_estimate(by_place, density, float(sizes.sum()))


def exact_estimate(outcomes: Sequence[Counts | str]) -> Estimate:
    """The estimate from all pending shards: their counts, or the errors of those that could not be read."""
    counts = sum((outcome for outcome in outcomes if isinstance(outcome, Counts)), Counts())
    unread = [outcome for outcome in outcomes if isinstance(outcome, str)]
    require_any(outcomes, unread)
    return Estimate(Interval(counts.tokens, counts.tokens, counts.tokens), counts.vectors, counts.rejects, counts.rows, 0, unread)


def sample_estimate(outcomes: Sequence[Counts | str | None], density: Numbers, size: float) -> Estimate:
    """The estimate from places, in source order. `density`: rows for a unit of weight at each place; `size`: the weight of all shards."""
    read = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Counts)]
    unread = [outcome for outcome in outcomes if isinstance(outcome, str)]
    require_any(read, unread)
    parts = [outcome for outcome in outcomes if isinstance(outcome, Counts)]

    def per_weight(values: Iterable[int]) -> Numbers:
        return np.array([value / counts.rows for value, counts in zip(values, parts, strict=True)]) * density[read]

    return Estimate(
        total(per_weight(counts.tokens for counts in parts), size),
        size * float(per_weight(counts.vectors for counts in parts).mean()),
        size * float(per_weight(counts.rejects for counts in parts).mean()),
        sum(counts.rows for counts in parts),
        len(parts),
        unread,
    )


def require_any(read: Sequence[object], unread: Sequence[str]) -> None:
    if not read or len(unread) == len(read):
        raise BulkembedError(f"nothing of what is pending could be read: {unread[0] if unread else 'it is empty'}")


def weights(shards: Sequence[Shard], key: VectorKey) -> Numbers:
    """A weight for each shard, to which its number of tokens is about proportional."""
    rows = np.array([shard.rows for shard in shards], np.float64)
    text_bytes = np.array([shard.text_bytes for shard in shards], np.float64)
    if key.long_documents in ("truncate", "reject"):
        text_bytes = np.minimum(text_bytes, rows * key.max_tokens * TOKEN_BYTES)
    return text_bytes + rows * ROW_BYTES


def in_strata(shards: Sequence[Shard]) -> list[Shard]:
    """Shards sorted by the size of their rows in powers of two, then in source order. Shards of like documents are neighbours."""
    return sorted(shards, key=lambda shard: (shard.text_bytes // max(1, shard.rows)).bit_length())


def draw(sizes: Numbers, count: int, random: np.random.Generator) -> tuple[list[int], list[float]]:
    """`count` random places on a line of shards that are as long as their weights: one in each of `count` equal parts of the line.

    Returns the shard of each place, and how far into the shard it is, from 0 to 1."""
    ends = np.cumsum(sizes)
    at = (np.arange(count) + random.random(count)) / count * ends[-1]
    where = np.minimum(np.searchsorted(ends, at, side="right"), len(sizes) - 1)
    fractions = np.clip(1 - (ends[where] - at) / sizes[where], 0, np.nextafter(1, 0))
    return where.tolist(), fractions.tolist()


def place(shard: Shard, fraction: float) -> Shard:
    """The few rows of the shard at this fraction of it. A row belongs to exactly one such group, so all rows are equally likely."""
    rows = max(1, min(PLACE_ROWS, PLACE_BYTES * shard.rows // max(1, shard.text_bytes)))
    first = int(fraction * shard.rows) // rows * rows
    return shard.slice(first, min(first + rows, shard.rows))


def count(job: Job, shards: Sequence[Shard], deadline: float) -> list[Counts | str | None]:
    """The counts that a run would have for each shard; its error where it cannot be read, None where the time was up."""

    def one(numbered: tuple[int, Shard]) -> Counts | str | None:
        number, shard = numbered
        if number >= MIN_PLACES and time.monotonic() > deadline:
            return None
        try:
            return stages.prepare(shard, job).counts
        except BulkembedError as error:
            return str(error)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, enumerate(shards)))


def total(values: Numbers, size: float) -> Interval:
    """The integral over a line of length `size` of `values`, which were measured at places in equal parts of the line, in order.

    The variance is estimated from neighbours. It is too large where the parts differ, and never too small. The bounds are factors of the
    mean. The upper one is farther where a few places have most of the tokens (Chen 1995), since a sample rather misses long documents."""
    mean, places = float(values.mean()), len(values)
    if not mean or places < 2:
        return Interval(0, size * mean, size * max(mean, 3 / places / TOKEN_BYTES))  # a share of 3 / n may be missed by n draws
    steps, off = np.diff(values), values - mean
    error = max(MIN_ERROR, math.sqrt(float(steps @ steps) / (2 * (places - 1)) / places) / mean)
    skew = max(0.0, float(np.mean(off**3)) / (float(np.mean(off**2)) ** 1.5 or 1.0)) / (6 * math.sqrt(places))
    t = quantile(places - 1)
    farther = t + skew * (1 + 2 * t**2) + 4 * skew**2 * (t + 2 * t**3)
    return Interval(size * mean / math.exp(t * error), size * mean, size * mean * math.exp(farther * error))


def quantile(freedom: int) -> float:
    """The 0.975 quantile of Student's t, by its expansion around the normal one: 0.3 % off at 4 degrees of freedom."""
    z = 1.959964
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return float(z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms)))
