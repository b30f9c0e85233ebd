"""A scheduler of vLLM's whose steps can be bounded while the engine runs: one engine then measures several step sizes, instead of
one engine each, which would have to be compiled and loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler

from scripts.gpu.plan import BOUND_FILE


class BoundedScheduler(Scheduler):  # type: ignore[misc]
    """Reads the bound before each step, which takes microseconds."""

    def schedule(self, *args: Any, **settings: Any) -> Any:
        self.max_num_scheduled_tokens = int(Path(os.environ[BOUND_FILE]).read_text(encoding="utf-8"))
        return super().schedule(*args, **settings)
