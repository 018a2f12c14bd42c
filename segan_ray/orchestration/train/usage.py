"""What a trial's process uses of its machine, an epoch at a time.

MLflow's own monitor of system metrics runs in the process that holds the run; here no training
process knows MLflow. The names are those its UI shows under "System metrics".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import psutil
import torch

MEGABYTE: Final = 1e6


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
            peak = torch.cuda.max_memory_allocated(self.device) / MEGABYTE
            used["system/gpu_0_memory_usage_megabytes"] = peak
            torch.cuda.reset_peak_memory_stats(self.device)
        return used
