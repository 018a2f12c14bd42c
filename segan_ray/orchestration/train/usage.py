"""What a trial's process uses of its machine, an epoch at a time.

MLflow's own monitor of system metrics runs in the process that holds the run; here no training
process knows MLflow. The names are those its UI shows under "System metrics".
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import torch

MEGABYTE: Final = 1e6
GIGABYTE: Final = 1e9
STATUS: Final = Path("/proc/self/status")
PEAK: Final = "memory/peak_gb"
"""The peak of the memory of the device that is trained on, in 10⁹ bytes."""


@dataclass
class Usage:
    """A meter that is read once an epoch."""

    process: psutil.Process
    device: torch.device

    @classmethod
    def begin(cls, device: torch.device) -> Usage:
        """Start to measure this process, and the GPU it trains on, if any."""
        meter = cls(psutil.Process(), device)
        meter.of_epoch()
        return meter

    def of_epoch(self) -> dict[str, float]:
        """Return what was used since the last call; CPU 100 is one core busy all the time."""
        used = {
            "system/cpu_utilization_percentage": self.process.cpu_percent(),
            "system/process_memory_megabytes": self.process.memory_info().rss / MEGABYTE,
            "system/system_memory_usage_percentage": psutil.virtual_memory().percent,
        }
        if self.device.type == "cuda":
            # What PyTorch holds, which others on the device cannot have.
            peak = float(torch.cuda.max_memory_reserved(self.device))
            used["system/gpu_0_memory_usage_megabytes"] = peak / MEGABYTE
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            peak = self._peak_bytes()
        return {**used, PEAK: peak / GIGABYTE}

    def _peak_bytes(self) -> float:
        """Return the most that the process has held of the machine's memory since the last call."""
        lines = STATUS.read_text().splitlines() if STATUS.exists() else []
        peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
        with suppress(OSError):
            # Linux counts the peak from here on anew.
            STATUS.with_name("clear_refs").write_text("5")
        return float(max(peaks, default=self.process.memory_info().rss))
