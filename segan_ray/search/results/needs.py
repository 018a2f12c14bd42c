"""What the epochs to come will take: time, GPU hours, money."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Needs:
    """The seconds that a sweep may still take, and those of GPUs; ``price`` is of a GPU hour."""

    seconds: float
    gpu_seconds: float = 0.0
    price: float | None = None

    def said(self) -> str:
        """Say it, for people: ``3 h 5 min (6.2 GPU hours, costs 15.50)``."""
        if not self.gpu_seconds:
            return rough(self.seconds)
        hours = self.gpu_seconds / 3600
        money = "" if self.price is None else f", costs {hours * self.price:.2f}"
        return f"{rough(self.seconds)} ({hours:.1f} GPU hours{money})"


def rough(seconds: float | None) -> str:
    """Return a time as one says it: 40 s, 12 min, 2 h 5 min, 3 d 4 h."""
    if seconds is None:
        return "–"
    if seconds < 57.5:
        return f"{5 * round(seconds / 5)} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
