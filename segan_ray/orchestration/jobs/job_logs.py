"""Following a job until it ends: its log as it grows, over connections that may drop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

import aiohttp

from segan_ray.errors import ClusterError
from segan_ray.orchestration.jobs.ray_jobs import LOST, Cluster, Job

AWAY_S: Final = 300.0
"""How long a dashboard may be away before following ends."""
POLL_S: Final = 0.5


def follow(cluster: Cluster, job: Job, write: Callable[[str], None]) -> Job:
    """Pass the log of a job to ``write`` piece by piece; return the job once it has ended.

    Raises:
        ClusterError: if the dashboard stays away.
    """
    seen = 0
    reached = time.monotonic()
    while True:
        log = _Log(write, seen)
        with contextlib.suppress(aiohttp.ClientError, RuntimeError, OSError):
            asyncio.run(log.tail(cluster, job.job))
        seen = log.seen
        try:
            job = cluster.look(job)
            if job.ended:
                if job.status != LOST:
                    _Log(write, seen).take(cluster.log(job))
                return job
            reached = time.monotonic()
        except ClusterError as error:
            if time.monotonic() - reached > AWAY_S:
                raise ClusterError(
                    f"{error} The job may go on; follow it again: "
                    f"{cluster.command('--follow', job.job)}"
                ) from None
        time.sleep(POLL_S)


class _Log:
    """The text of a log, of which ``seen`` characters were written before."""

    def __init__(self, write: Callable[[str], None], seen: int) -> None:
        self._write = write
        self._position = 0
        self.seen = seen

    async def tail(self, cluster: Cluster, job: str) -> None:
        """Write new text until the connection ends; Ray sends a log from its beginning."""
        async for piece in cluster.client.tail_job_logs(job):
            self.take(piece)

    def take(self, piece: str) -> None:
        """Write the new part of the next piece."""
        old = min(max(0, self.seen - self._position), len(piece))
        self._position += len(piece)
        if old < len(piece):
            self._write(piece[old:])
            self.seen = self._position
