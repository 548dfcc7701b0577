"""Ray Data: tasks over many machines.

In: tasks, which are the rows of a Ray Data set, a block each. Out: their answers. `data.ray` and `tag.ray`
use it. A task says all that its result depends on. A worker that dies costs only its task, which Ray gives to
another worker. A task that fails says so in its answer's `error`, because Ray would wrap an exception. The
package is in the extra `bulk`. Imports no torch.
"""

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from beatline.core.errors import UserError

OBJECT_BYTES = (
    256 << 20
)  # memory for tasks and answers, which are small; Ray would take a third of the machine
MORE_TRIES = 9  # of a task whose worker died

RayTask = dict[str, Any]
"""A task for `each`: texts and bytes by name."""


def each(
    tasks: list[RayTask], work: Callable[[RayTask], dict[str, Any]], workers: int, **needs: Any
) -> Iterator[dict[str, Any]]:
    """What `work` makes of each task, in any order; each processor has one task at a time.

    A task whose worker dies is done again.

    Args:
        workers: Processors of a local Ray; a cluster named by RAY_ADDRESS has its own.
        needs: What a task takes, as Ray names it, such as `num_gpus`.

    Raises:
        UserError: `missing-package`; what a task says in `error`; `out-of-memory` where the workers of a task
            die again and again.
    """
    if not tasks:
        return
    with connected(workers) as ray:
        with warnings.catch_warnings():  # it would have max_retries by a name that it does not offer
            warnings.simplefilter("ignore", DeprecationWarning)
            answers = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map(
                work, max_retries=MORE_TRIES, **needs
            )
        answers.context.enable_progress_bars = False
        try:
            for answer in answers.iter_rows():
                if answer["error"]:
                    raise UserError(*json.loads(answer["error"]))
                yield answer
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
            cause = (
                f"{1 + MORE_TRIES} workers died at one task, which most often means that they need more "
                f"memory"
            )
            raise UserError(
                "out-of-memory",
                "cannot go on with Ray",
                cause,
                "give the machine more memory or fewer processors, and run again to go on from here",
            ) from error


def failure(error: UserError) -> str:
    """An error as a task's answer says it."""
    return json.dumps([error.code, error.what, error.cause, error.remedy])


@contextmanager
def connected(workers: int) -> Iterator[Any]:
    """Ray, connected to the cluster at RAY_ADDRESS or started on this machine for as long as it is needed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault(
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"
        )  # Ray's switch, on every system, between this machine's address and loopback
    try:
        import ray
        import ray.data
        import ray.exceptions
    except ImportError as error:
        raise UserError(
            "missing-package", "cannot use Ray", str(error), "pip install 'beatline[bulk]'"
        ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    mine = not ray.is_initialized()
    if mine and os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    elif mine:
        ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_BYTES,
        )
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()
