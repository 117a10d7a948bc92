"""Shards computed on Ray: the machine's own GPUs and cores, or a cluster that is connected to.

One stage of Ray Data: actors that read, decode and compute. Decoding in a stage of its own would send 12 MB an image of 1,024
pixels a side through Ray's object store, to spare an actor what its threads do while the model runs.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ..errors import WorkersError
from ..index import ImageFile
from .shard import Shard
from .worker import Worker, WorkerSettings, block_of

logger = logging.getLogger(__name__)

IMAGES_A_SHARD = 256
"""At most: what a worker repeats that is killed."""
SHARDS_A_WORKER = 4
"""At least, of few images: so that none waits long for the last."""


@dataclass(frozen=True)
class Pool:
    """The actors.

    Attributes:
        least: of them.
        most: of them.
        cores: of each.
        gpus: of each, 0 or 1.
    """

    least: int
    most: int
    cores: int
    gpus: int


@contextmanager
def connected(num_cpus: int | None = None) -> Iterator[Any]:
    """Ray: the cluster that is connected to, or named by RAY_ADDRESS, else this machine, for the time of the block.

    Args:
        num_cpus: of this machine, where it is started here; None for all.

    Raises:
        WorkersError: Ray is not installed.
    """
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Which GPUs a worker without any sees is left as it is; Ray warns where nobody says so.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray
    except ImportError as error:
        raise WorkersError("Ray is not installed: pip install 'fiftyone-refseg[ray]', or use engine=\"local\".") from error
    if ray.is_initialized():
        yield ray
        return
    started_here: dict[str, Any] = {} if "RAY_ADDRESS" in os.environ else {"include_dashboard": False, "num_cpus": num_cpus}
    ray.init(
        **started_here,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
    )
    try:
        yield ray
    finally:
        ray.shutdown()


def pool_of(ray: Any, num_workers: int | None, cores: int | None) -> Pool:
    """As many actors as the cluster has room for: one a GPU, or one for so many cores.

    Raises:
        WorkersError: there is no room for one.
    """
    there = ray.cluster_resources()
    gpus, cpus = int(there.get("GPU", 0)), int(there.get("CPU", 1))
    if gpus:
        each = cores or max(1, cpus // gpus)
        most = num_workers or gpus
        return Pool(most if num_workers else 1, most, each, 1)
    each = cores or (max(1, cpus // num_workers) if num_workers else cpus)
    most = num_workers or max(1, cpus // each)
    if each > cpus:
        raise WorkersError(f"A worker is to have {each} cores, and Ray sees {cpus}: ask for fewer.")
    return Pool(most, most, each, 0)


def compute_shards(ray: Any, images: Sequence[ImageFile], about: WorkerSettings, pool: Pool) -> Generator[Shard, None, None]:
    """Shards of all images, as workers finish them; closing stops the work.

    Raises:
        WorkersError: a worker cannot load the models, or cannot write.
    """
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # It tells of each plan that it begins; the driver tells how far it is.
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    size = min(IMAGES_A_SHARD, max(1, -(-len(images) // (SHARDS_A_WORKER * pool.most))))
    blocks = [block_of(list(images[start : start + size])) for start in range(0, len(images), size)]
    about = replace(about, cores=pool.cores)
    # Ray Data starts an actor that died again, and gives it its block again.
    answers = ray.data.from_arrow(blocks).map_batches(
        Worker,
        fn_constructor_args=(about,),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=pool.least, max_size=pool.most, max_tasks_in_flight_per_actor=2),
        num_cpus=pool.cores,
        num_gpus=pool.gpus,
    )
    for answer in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for row in answer.to_pylist():
            if row["error"] is not None:
                raise WorkersError(f"A worker cannot go on, {row['error']}")
            yield Shard.from_json(row["shard"])
