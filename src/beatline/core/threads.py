"""Work done ahead by threads, its results taken in order.

In: jobs, or items that are slow to make. Out: their results in the same order. Every room that reads, decodes
or downloads ahead uses it; the number of threads changes nothing but speed.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_order(jobs: Iterable[Job], make: Callable[[Job], Result], workers: int) -> Generator[Result]:
    """`make(job)` for each job, in order.

    Args:
        workers: Threads, which work up to two jobs each ahead; with 0 a job is done when it is asked for.
    """
    if workers == 0:
        yield from map(make, jobs)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="ahead") as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for job in jobs:
                pending.append(pool.submit(make, job))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            # what was made for nobody is given up before the pool waits for the rest, which may wait for it
            pending.clear()


def buffered(items: Iterable[Result], size: int) -> Iterator[Result]:
    """The same items, made by a thread up to `size` ahead; what making them raises is raised here."""
    ready: queue.Queue[tuple[str, Result | BaseException | None]] = queue.Queue(size)
    over = threading.Event()

    def put(kind: str, item: Result | BaseException | None) -> None:
        while not over.is_set():
            try:
                return ready.put((kind, item), timeout=0.1)
            except queue.Full:
                pass

    def fill() -> None:
        try:
            for item in items:
                put("item", item)
                if over.is_set():
                    return
            put("end", None)
        except BaseException as error:  # handed to the reader
            put("error", error)

    threading.Thread(target=fill, name="buffered", daemon=True).start()
    try:
        while True:
            kind, item = ready.get()
            if kind == "error":
                raise item  # type: ignore[misc]
            if kind == "end":
                return
            yield item  # type: ignore[misc]
    finally:
        over.set()
