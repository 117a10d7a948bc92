"""Real processes, on the session's database, that do something to one dataset at the same moment.

A fork server has the heavy imports done for them, but not FiftyOne's and Lance's: their connections and threads do not survive
a fork.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import fiftyone as fo

ANSWER_SECONDS = 240.0
"""After so long without a word a process counts as stuck."""

servers = multiprocessing.get_context("forkserver")
servers.set_forkserver_preload(
    [
        "refseg.matching.ranking",
        "refseg.models.loaded",
        "refseg.demo.world",
        "sam2.modeling.sam2_base",
        "hydra.utils",
        "transformers.models.dinov2.modeling_dinov2",
        "mongoengine",
        "pandas",
        "pytest",
        "sklearn.linear_model",
    ]
)


def at_once(work: Callable[..., Any], dataset_name: str, *arguments: tuple[Any, ...]) -> list[Any]:
    """What a function of a module returns in processes of their own, one for each tuple of arguments.

    It is called with the dataset, loaded before any process begins, and with these arguments. What it raises is returned.
    """
    barrier, answers = servers.Barrier(len(arguments)), servers.Queue()
    processes = [
        servers.Process(target=_run, args=(work, dataset_name, own, number, barrier, answers), daemon=True)
        for number, own in enumerate(arguments)
    ]
    for process in processes:
        process.start()
    try:
        found = dict(answers.get(timeout=ANSWER_SECONDS) for _ in processes)
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    return [found[number] for number in range(len(arguments))]


def other_process(dataset: fo.Dataset) -> fo.Dataset:
    """The dataset as another process holds it, which knows what there is now."""
    # Past FiftyOne's cache, by which a process has each dataset once.
    own: fo.Dataset = type(dataset)._make_instance(dataset.name, _create=False)
    own.list_runs()
    return own


def _run(work: Callable[..., Any], name: str, arguments: tuple[Any, ...], number: int, barrier: Any, answers: Any) -> None:
    import fiftyone as fo

    try:
        dataset = fo.load_dataset(name)
        # As somebody who has looked at it: FiftyOne reads the runs when they are first asked for.
        dataset.list_runs()
        barrier.wait(ANSWER_SECONDS)
        answer = work(dataset, *arguments)
    except Exception as error:
        answer = error
    answers.put((number, answer))
