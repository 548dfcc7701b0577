"""Ray: tasks over many machines.

Outside the straight line: `bulk` and `bulk_tag` give it work. A task says all that its result depends on, so a worker that dies costs only its task, which Ray
gives to another one. What a task cannot do it says in its answer's `error`, for Ray would wrap an exception. Extra `bulk`. Imports no torch.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from beatline.errors import UserError

OBJECT_BYTES = 256 << 20  # memory for tasks and answers, which are small; Ray would take a third of the machine
MORE_TRIES = 9  # of a task whose worker died
AHEAD = 1000  # tasks that Ray knows of, so that a cluster that grows by itself sees what there is to do
LOOK_SECONDS = 0.5  # between looks at what is done

Task = dict[str, str]
"""What to do, as JSON."""


def each(tasks: list[Task], work: Callable[[Task], dict[str, Any]], workers: int, **needs: Any) -> Iterator[dict[str, Any]]:
    """What `work` makes of each task, in any order, one task a processor; a task whose worker dies is done again.

    Args:
        workers: Processors of a local Ray; a cluster named by RAY_ADDRESS has its own.
        needs: What a task takes, as Ray names it, such as `num_gpus`.

    Raises:
        UserError: `missing-package`; what a task says in `error`; `out-of-memory` where the workers of a task die again and again.
    """
    if not tasks:
        return
    with connected(workers) as ray:
        run, todo = ray.remote(max_retries=MORE_TRIES, **needs)(work), iter(tasks)
        running = [run.remote(task) for task in islice(todo, AHEAD)]
        try:
            while running:
                done, running = ray.wait(running, num_returns=len(running), timeout=LOOK_SECONDS)
                running += [run.remote(task) for task in islice(todo, len(done))]
                for answer in ray.get(done):
                    if answer["error"]:
                        raise UserError(*json.loads(answer["error"]))
                    yield answer
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
            cause = f"{1 + MORE_TRIES} workers died at one task, which most often means that they need more memory"
            raise UserError("out-of-memory", "cannot go on with Ray", cause, "give the machine more memory or fewer processors, and run again to go on from here") from error
        finally:
            for task in running:  # of a cluster that goes on without us
                ray.cancel(task, force=True)


def failure(error: UserError) -> str:
    """An error as a task's answer says it."""
    return json.dumps([error.code, error.what, error.cause, error.remedy])


@contextmanager
def connected(workers: int) -> Iterator[Any]:
    """Ray, connected to the cluster at RAY_ADDRESS or started on this machine for as long as it is needed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray's switch, on every system, between this machine's address and loopback
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UserError("missing-package", "cannot use Ray", str(error), "pip install 'beatline[bulk]'") from error
    mine = not ray.is_initialized()
    if mine and os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    elif mine:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, object_store_memory=OBJECT_BYTES)
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()
