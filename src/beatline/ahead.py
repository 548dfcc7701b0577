"""Work done ahead by threads, its results taken in order.

Outside the straight line: `store` decodes with it and `batches` reads with it. The number of threads changes nothing but speed.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_order(jobs: Iterable[Job], make: Callable[[Job], Result], workers: int) -> Iterator[Result]:
    """`make(job)` for each job, in order, up to two jobs a worker ahead; without workers each when it is asked for."""
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
