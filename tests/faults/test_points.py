"""A process that dies between two steps: nobody sees the first alone, and doing it again is all that is needed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest

import refseg
from refseg.failpoints import POINTS
from refseg.prototypes.prototypes import Prototypes
from refseg.review.decisions import accept, reject
from tests.at_once import ANSWER_SECONDS, other_process, servers
from tests.faults.invariants import violations
from tests.review.predictions import ids_of
from tests.trays import quick_models, tray_samples

QUIET = {"num_workers": 0, "progress": False}
SEGMENTING = {"min_confidence": 0.0, "max_detections": 4, **QUIET}


def decide(dataset: fo.Dataset, folder: str) -> None:
    """Reject what was accepted, image by image."""
    for sample in dataset:
        reject(dataset, [label.id for label in sample.predictions.detections])


def segment(dataset: fo.Dataset, folder: str) -> None:
    """Write predictions with their masks in files in place of those that are there."""
    refseg.segment(dataset, "parts", model=quick_models(), mask_dir=f"{folder}/masks", overwrite=True, **SEGMENTING)


def replace_prototypes(dataset: fo.Dataset, folder: str) -> None:
    """Keep others under the same name."""
    kept = refseg.load_prototypes(dataset, "parts")
    refseg.save_prototypes(dataset, kept.remove(kept.reference_ids[0]), "parts", overwrite=True)


def build(dataset: fo.Dataset, folder: str) -> None:
    """Compute the images that are not in the index yet."""
    refseg.build_index(dataset, quick_models(), **QUIET)


def share_out(dataset: fo.Dataset, folder: str) -> None:
    """As a worker and its driver do, in one process: a shard for each image that is not in the index yet."""
    from refseg.dataset.index import index_for
    from refseg.dataset.indexing import images_of
    from refseg.shards import Committer, ShardWriter

    index = index_for(dataset, quick_models())
    committer = Committer(index.index, seconds=0.0)
    committer.recover()
    index.index.refresh()
    writer = ShardWriter(index.uri, index.index.settings, quick_models(), num_workers=0)
    for image in images_of(dataset, index).missing:
        committer.add(writer.write([image]))
        committer.commit_if_due()
    index.index.refresh()
    assert index.index.num_unread_rows == 0
    assert len(index.index.images) == len(dataset)


WORK: dict[str, Callable[[fo.Dataset, str], None]] = {
    "decision": decide,
    "predictions": segment,
    "run": segment,
    "prototypes": replace_prototypes,
    "index": build,
    "shards": share_out,
}


def die_at(point: str, told: Connection) -> None:
    """In another process: be killed at a point of what is done to the dataset that it is told of."""
    import torch

    import refseg.dataset.builder
    import refseg.failpoints
    import refseg.review.decisions
    import refseg.runs.writing

    torch.set_num_threads(1)
    # Batches of one image, so that some are written and others are not.
    refseg.dataset.builder.SECONDS_A_WRITE = 0.0
    refseg.dataset.builder.IMAGES_A_BATCH = dict.fromkeys(("cpu", "mps", "cuda"), 1)
    refseg.runs.writing.IMAGES_A_WRITE = 1
    name, folder = told.recv()
    dataset = fo.load_dataset(name)
    # As the variable does when the module is imported.
    refseg.failpoints._armed.update(refseg.failpoints._parse(f"{point}=kill"))
    WORK[point.split(".")[0]](dataset, folder)


@dataclass
class Dying:
    """A process that is told of a dataset, and killed at a point of what it does to it."""

    process: Any
    tell: Connection

    def exit_code(self, dataset: fo.Dataset, folder: Path) -> int | None:
        """How it ends; negative where a signal ends it."""
        self.tell.send((dataset.name, str(folder)))
        self.process.join(ANSWER_SECONDS)
        return self.process.exitcode


@pytest.fixture
def dying(point: str) -> Iterator[Dying]:
    """It imports what it needs while its dataset is made."""
    told, tell = servers.Pipe(duplex=False)
    process = servers.Process(target=die_at, args=(point, told), daemon=True)
    process.start()
    yield Dying(process, tell)
    process.kill()
    process.join()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("points")


@pytest.fixture
def world(places: Path, prototypes: Prototypes) -> Iterator[fo.Dataset]:
    """Four trays, two of them indexed and all segmented, some predictions accepted."""
    number = len(list(places.iterdir()))
    folder = places / str(number)
    folder.mkdir()
    dataset = fo.Dataset(persistent=True)
    dataset.add_samples(tray_samples(folder, 4), progress=False)
    models = quick_models()
    refseg.save_prototypes(dataset, prototypes, "parts")
    refseg.build_index(dataset[:2], models, **QUIET)
    refseg.segment(dataset, "parts", model=models, mask_dir=folder / "masks", index=False, **SEGMENTING)
    accept(dataset, ids_of(dataset)[:3])
    yield dataset
    dataset.delete()


LIKE_OTHERS = (
    *("prototypes.draft", "predictions.masks", "predictions.removed", "decision.read", "index.images"),
    *("shards.images", "shards.written"),
)
"""Between steps whose other kills are always tried."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", [pytest.param(point, marks=[pytest.mark.thorough] if point in LIKE_OTHERS else []) for point in POINTS]
)
def test_a_kill(dying: Dying, world: fo.Dataset, places: Path, point: str) -> None:
    folder = max(places.iterdir(), key=lambda path: int(path.name))
    assert dying.exit_code(world, folder) == -signal.SIGKILL
    assert violations(world.name) == []
    again = other_process(world)
    WORK[point.split(".")[0]](again, str(folder))
    assert violations(world.name) == []
