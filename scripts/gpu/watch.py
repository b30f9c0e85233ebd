"""Memory of a child, and memory, clock and power of the GPU, while rows are measured."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass

from scripts.benchmarks.measuring import tree_memory

SAMPLE_SECONDS = 2.0  # reading the memory of a large process is slow, and the process waits meanwhile
QUERY = ("memory.used", "clocks.sm", "power.draw")
UNLOADED_GB = 2.0  # with less of the GPU's memory in use the last child's engines are gone
UNLOAD_SECONDS = 15.0


@dataclass(frozen=True)
class Sample:
    at: float  # monotonic seconds
    host_gb: float
    gpu_gb: float | None
    mhz: float | None
    watts: float | None


def gpu() -> tuple[float, float, float] | None:
    """Memory in GB, clock in MHz, power in W of the first GPU; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        memory, clock, power = map(float, done.stdout.split(","))
    except ValueError:
        return None
    return memory * 2**20 / 1e9, clock, power


class Watch:
    """Samples a process tree and the GPU until it is ended."""

    def __init__(self, pid: int) -> None:
        self.pid, self.samples = pid, list[Sample]()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_SECONDS):
            memory, clock, power = gpu() or (None, None, None)
            self.samples.append(Sample(time.monotonic(), tree_memory(self.pid) / 1e9, memory, clock, power))

    def since(self, began: float) -> dict[str, float]:
        """Peaks of memory since the child's start, and medians of clock and power since `began`."""
        samples = list(self.samples)
        if not samples:
            return {}
        result = {"host_peak_gb": max(sample.host_gb for sample in samples)}
        memory = [sample.gpu_gb for sample in samples if sample.gpu_gb is not None]
        late = [sample for sample in samples if sample.at >= began]
        clocks = [sample.mhz for sample in late if sample.mhz is not None]
        watts = [sample.watts for sample in late if sample.watts is not None]
        result |= {"gpu_peak_gb": max(memory)} if memory else {}
        result |= {"gpu_mhz": statistics.median(clocks), "gpu_watts": statistics.median(watts)} if clocks and watts else {}
        return {name: round(value, 2) for name, value in result.items()}

    def end(self) -> None:
        self.ended.set()
        self.thread.join()


def wait_until_unloaded() -> None:
    """Waits until the last child's memory on the GPU is free again, for UNLOAD_SECONDS at most."""
    due = time.monotonic() + UNLOAD_SECONDS
    while (card := gpu()) is not None and card[0] > UNLOADED_GB and time.monotonic() < due:
        time.sleep(0.5)
