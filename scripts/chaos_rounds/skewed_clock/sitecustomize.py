"""Python imports this first where its folder is in PYTHONPATH: the clock of the process is off by CHAOS_CLOCK_SECONDS.

It is the clock that Python code sees. Ray's own code in C++ has the right one: libfaketime made its threads fail as they started."""

from __future__ import annotations

import copyreg
import datetime
import os
import time
from typing import Any

SECONDS = float(os.environ.get("CHAOS_CLOCK_SECONDS", "0"))
right_time, right_time_ns, right_datetime = time.time, time.time_ns, datetime.datetime


class SkewedDatetime(datetime.datetime):
    __slots__ = ()  # Cython modules look at the size

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> SkewedDatetime:
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> SkewedDatetime:
        return cls.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)


# Times are pickled under the name of the class that stands there.
SkewedDatetime.__module__, SkewedDatetime.__name__, SkewedDatetime.__qualname__ = "datetime", "datetime", "datetime"
copyreg.pickle(right_datetime, lambda time: (SkewedDatetime, time.__reduce__()[1]))  # type: ignore[arg-type, return-value]
shifted: dict[Any, dict[str, Any]] = {
    time: {"time": lambda: right_time() + SECONDS, "time_ns": lambda: right_time_ns() + round(SECONDS * 1e9)},
    datetime: {"datetime": SkewedDatetime},
}
for module, functions in shifted.items():
    vars(module).update(functions)
