"""A vLLM scheduler whose steps can be bounded while the engine runs.

One engine measures several step sizes with it. Otherwise each step size would need an engine to be compiled and loaded."""

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
