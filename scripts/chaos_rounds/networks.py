"""A store that cannot be reached for seconds: the proxy before it breaks every connection, or never answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from scripts.chaos_rounds.scene import Scene


def cut(how: str) -> Callable[[Scene], contextlib.AbstractContextManager[str | None]]:
    """`how`: `refuse` or `hang`, faults of the proxy."""

    @contextlib.contextmanager
    def inject(scene: Scene) -> Iterator[str | None]:
        proxy = scene.where.proxy
        if proxy is None:
            yield None
            return
        faults, rate = proxy.faults, proxy.rate
        proxy.rate, proxy.faults = 1.0, [how]
        try:
            yield "the store"
        finally:
            proxy.faults, proxy.rate = faults, rate

    return inject
