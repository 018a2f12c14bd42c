"""Work on many items in a few processes, which goes on when an item kills its process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Final, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD: Final = 2


Begin = Callable[[], None]


def each_done(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    begin: Begin | None = None,
) -> Generator[tuple[Item, Future[Result]]]:
    """Yield every item with its finished future, as they finish.

    At most ``AHEAD`` items a worker are in flight, so that results are consumed as they come.
    A process that dies (killed for memory, crashed in a library) takes all items in flight
    with it, and the item to blame is unknown. Each item in flight is tried once more alone, and
    yields a ``BrokenProcessPool`` only if its process dies again. Each process calls ``begin``
    first.
    """
    left = deque(items)
    suspects: deque[Item] = deque()
    while left:
        processes = min(workers, len(left))
        for item, future in _until_a_process_dies(
            work, left, processes, begin, in_flight=AHEAD * processes
        ):
            if _died(future):
                suspects.append(item)
            else:
                yield item, future
    while suspects:
        yield from _until_a_process_dies(work, suspects, 1, begin, in_flight=1)


def _until_a_process_dies(
    work: Callable[[Item], Result],
    left: deque[Item],
    workers: int,
    begin: Begin | None,
    *,
    in_flight: int,
) -> Generator[tuple[Item, Future[Result]]]:
    """Take items off ``left`` and yield each with its future; stop early if a process dies."""
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=begin) as pool:
        running: dict[Future[Result], Item] = {}
        alive = True
        while running or (left and alive):
            while alive and left and len(running) < in_flight:
                try:
                    future = pool.submit(work, left[0])
                except BrokenProcessPool:
                    alive = False
                else:
                    running[future] = left.popleft()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                alive = alive and not _died(future)
                yield running.pop(future), future


def _died(future: Future[Result]) -> bool:
    return isinstance(future.exception(), BrokenProcessPool)
