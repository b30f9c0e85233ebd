"""How many tokens a plan has to embed: counted where that is little, else estimated from places drawn all over the source."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from bulkembed.config.recipe import VectorKey
from bulkembed.errors import BulkembedError, ConfigError
from bulkembed.records import Counts, Shard
from bulkembed.runs import stages
from bulkembed.runs.job import Job

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
    """Which costs less. An API counts tokens of its own, so that the two amounts may differ by as much as either is uncertain."""
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
        """Of the cluster, in the currency of the prices."""
        return self.prices.cluster(self.tokens)

    @property
    def api_cost(self) -> Interval | None:
        return self.prices.api(self.tokens)


NOTHING = Estimate(Interval(0, 0, 0), 0, 0, 0, 0, [])


def estimate(job: Job, pending: Sequence[Shard], seed: int = 0) -> Estimate:
    """Of what is pending. The same for the same plan. Raises BulkembedError where nothing of it can be read."""
    deadline = time.monotonic() + MAX_SECONDS
    rows, text_bytes = sum(shard.rows for shard in pending), sum(shard.text_bytes for shard in pending)
    if len(pending) <= PLACES and rows <= PLACES * PLACE_ROWS and text_bytes <= PLACES * PLACE_BYTES:
        whole = count(job, pending, deadline)
        if None not in whole:
            return counted([each for each in whole if each is not None])
    random = np.random.default_rng(seed)
    ordered = in_strata(pending)
    sizes = weights(ordered, job.recipe.vector_key)
    where, fractions = draw(sizes, PLACES, random)
    places = [place(ordered[shard], fraction) for shard, fraction in zip(where, fractions, strict=True)]
    # In any order: where time ends early, what was read is still from all over. A long document may be at many places, and is read once.
    order = random.permutation(PLACES).tolist()
    distinct = list(dict.fromkeys(places[number] for number in order))
    found = dict(zip(distinct, count(job, distinct, deadline), strict=True))
    read = list(takewhile(lambda number: found[places[number]] is not None, order))
    if len(read) == PLACES and sum(each.rows for each in distinct) == rows:
        return counted([each for each in found.values() if each is not None])
    back = [found[places[number]] if number in read else None for number in range(PLACES)]
    density = np.array([ordered[shard].rows / sizes[shard] for shard in where])
    return sampled(back, density, float(sizes.sum()))


def counted(found: Sequence[Counts | str]) -> Estimate:
    """Of all that is pending, read whole."""
    whole = sum((each for each in found if isinstance(each, Counts)), Counts())
    unread = [each for each in found if isinstance(each, str)]
    require_any(found, unread)
    return Estimate(Interval(whole.tokens, whole.tokens, whole.tokens), whole.vectors, whole.rejects, whole.rows, 0, unread)


def sampled(found: Sequence[Counts | str | None], density: Numbers, size: float) -> Estimate:
    """Of places in the order in which they lie. `density`: rows of a unit of weight there; `size`: all weight."""
    read = [number for number, each in enumerate(found) if isinstance(each, Counts)]
    unread = [each for each in found if isinstance(each, str)]
    require_any(read, unread)
    parts = [each for each in found if isinstance(each, Counts)]

    def per_weight(values: Iterable[int]) -> Numbers:
        return np.array([value / each.rows for value, each in zip(values, parts, strict=True)]) * density[read]

    return Estimate(
        total(per_weight(each.tokens for each in parts), size),
        size * float(per_weight(each.vectors for each in parts).mean()),
        size * float(per_weight(each.rejects for each in parts).mean()),
        sum(each.rows for each in parts),
        len(parts),
        unread,
    )


def require_any(read: Sequence[object], unread: Sequence[str]) -> None:
    if not read or len(unread) == len(read):
        raise BulkembedError(f"nothing of what is pending could be read: {unread[0] if unread else 'it is empty'}")


def weights(shards: Sequence[Shard], key: VectorKey) -> Numbers:
    """What tokens of each shard are in proportion to, about."""
    rows = np.array([shard.rows for shard in shards], np.float64)
    text_bytes = np.array([shard.text_bytes for shard in shards], np.float64)
    if key.long_documents in ("truncate", "reject"):
        text_bytes = np.minimum(text_bytes, rows * key.max_tokens * TOKEN_BYTES)
    return text_bytes + rows * ROW_BYTES


def in_strata(shards: Sequence[Shard]) -> list[Shard]:
    """Shards of like documents side by side: by the size of their rows, in powers of two, and then as they lie in the source."""
    return sorted(shards, key=lambda shard: (shard.text_bytes // max(1, shard.rows)).bit_length())


def draw(sizes: Numbers, count: int, random: np.random.Generator) -> tuple[list[int], list[float]]:
    """Places on the line on which the shards lie one after the other, each as long as its weight: one in every `count`-th part of it.
    The shard of each place, and how far into it that is."""
    ends = np.cumsum(sizes)
    at = (np.arange(count) + random.random(count)) / count * ends[-1]
    where = np.minimum(np.searchsorted(ends, at, side="right"), len(sizes) - 1)
    fractions = np.clip(1 - (ends[where] - at) / sizes[where], 0, np.nextafter(1, 0))
    return where.tolist(), fractions.tolist()


def place(shard: Shard, fraction: float) -> Shard:
    """The few rows that lie there. Every row of a shard belongs to one such group, so that none is read more often than others."""
    rows = max(1, min(PLACE_ROWS, PLACE_BYTES * shard.rows // max(1, shard.text_bytes)))
    first = int(fraction * shard.rows) // rows * rows
    start, stop = shard.start + first, min(shard.start + first + rows, shard.stop)
    text_bytes = shard.text_bytes * (stop - start) // shard.rows
    return replace(shard, start=start, stop=stop, skip=shard.skip + first, text_bytes=text_bytes)


def count(job: Job, shards: Sequence[Shard], deadline: float) -> list[Counts | str | None]:
    """What a run would make of each shard; the error where it cannot be read, None where time was up."""

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
    """The integral over a line of length `size` of what was measured at places on it, one in each of its equal parts, in order.

    The variance is that of neighbours: too large where the parts differ, never too small. The bounds are a factor apart, not a sum,
    and the upper one is farther where a few places have most (Chen 1995): what a sample misses is more often long documents."""
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
