"""CPU and memory of a process tree while it runs."""

from __future__ import annotations

from collections import defaultdict

import psutil

from scripts.benchmarks.material import Row
from scripts.benchmarks.measuring import memory_of, tree
from scripts.benchmarks.memory import KINDS, kind_of


class Usage:
    """Peaks over the samples of a process tree. A process that ends between two samples counts as in its last one."""

    def __init__(self) -> None:
        self.peak = 0.0  # bytes of all processes; shared pages count once
        self.largest = 0.0  # resident bytes of the largest process
        self.kinds: dict[str, float] = defaultdict(float)  # resident bytes of the largest process of each kind
        self.cpu: dict[tuple[int, float], float] = {}  # seconds by process: its id and its start

    def sample(self, pid: int) -> float:
        processes = tree(pid)
        self.peak = max(self.peak, sum(map(memory_of, processes)))
        for process in processes:
            try:
                spent, resident, started = process.cpu_times(), process.memory_info().rss, process.create_time()
            except psutil.Error:
                continue  # it has ended
            self.cpu[process.pid, started] = spent.user + spent.system
            self.largest = max(self.largest, resident)
            kind = kind_of(process, pid)
            self.kinds[kind] = max(self.kinds[kind], resident)
        return self.peak

    def row(self) -> Row:
        by_kind = {f"{kind}_gb": round(self.kinds[kind] / 1e9, 2) for kind in KINDS if self.kinds[kind]}
        return {
            "cpu_s": round(sum(self.cpu.values()), 1),
            "peak_gb": round(self.peak / 1e9, 2),
            "largest_process_gb": round(self.largest / 1e9, 2),
            **(by_kind if len(by_kind) > 1 else {}),
        }
