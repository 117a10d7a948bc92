"""One user: does something at random, notes it before and after, and goes on until it is killed.

Decisions are made on the user's own images, so that what was acknowledged is known exactly, and sometimes on images that nobody
owns, where two users contradict each other. All else is done to the whole dataset.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import IO, Any

import fiftyone as fo
from pymongo.errors import PyMongoError

import refseg
from refseg.dataset.label_edits import images_that_hold
from refseg.dataset.source_settings import SourceSettings
from refseg.errors import DatasetError, IndexDamagedError, PrototypeFileError, RefSegError
from refseg.review.deciding import Decision
from refseg.runs.updating import iter_learn
from tests.faults.invariants import DECIDED
from tests.trays import quick_models

OWNER = "owner"
NOBODY = 0
QUIET = {"num_workers": 0, "progress": False}
WEIGHTS = {
    "accept": 6.0,
    "reject": 6.0,
    "relabel": 3.0,
    "undo": 4.0,
    "decide on anybody's": 6.0,
    "segment": 2.0,
    "build": 1.5,
    "update": 1.5,
    "learn": 0.5,
    "inspect": 0.5,
    "compact": 0.7,
    "tag": 1.0,
    "add": 1.0,
    "delete": 0.8,
    "save prototypes": 0.5,
}
LEAST_IMAGES, MOST_IMAGES = 16, 30


class User:
    """A process's view of the world.

    Args:
        name: of the dataset.
        number: of the user, from 1.
        seed: of what is done.
        log: where it is noted, line by line.
        folder: where files are.
    """

    def __init__(self, name: str, number: int, seed: int, log: IO[str], folder: Path) -> None:
        self.dataset = fo.load_dataset(name)
        self.number = number
        self.rng = random.Random(seed)
        self.folder = folder
        self.models = quick_models()
        self.mine: list[Decision] = []
        self._log = log

    def note(self, **facts: Any) -> None:
        """Write a line, which is on its way to the disk when this returns."""
        self._log.write(json.dumps({"time": time.time(), **facts}) + "\n")
        self._log.flush()

    def act(self) -> None:
        """Do one thing."""
        kind = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        method = getattr(self, kind.replace(" ", "_").replace("'", ""))
        began = time.monotonic()
        try:
            method()
            self.note(done=kind, seconds=time.monotonic() - began)
        except (IndexDamagedError, PrototypeFileError) as error:
            self.note(violation=f"{kind}: {type(error).__name__}: {error}")
        except RefSegError as error:
            self.note(refused=kind, error=type(error).__name__, message=str(error))
        except PyMongoError as error:
            self.note(refused=kind, error=type(error).__name__, message=str(error)[:200])
        except Exception as error:
            self.note(violation=f"{kind}: {type(error).__name__}: {error}")

    def begin(self) -> None:
        """Say what is there of one's own images before anything is done."""
        own = self.dataset.match({OWNER: self.number})
        held = {
            str(document["_id"]): [
                str(label["_id"]) for name in DECIDED for label in (document.get(name) or {}).get("detections") or []
            ]
            for document in self.dataset._sample_collection.find({"_id": {"$in": [s._id for s in own.select_fields()]}})
        }
        self.note(holds=held)

    # Decisions

    def accept(self) -> None:
        self._decide(lambda ids: refseg.accept(self.dataset, ids, as_references=self.rng.random() < 0.3))

    def reject(self) -> None:
        self._decide(lambda ids: refseg.reject(self.dataset, ids))

    def relabel(self) -> None:
        self._decide(lambda ids: refseg.relabel(self.dataset, ids, self.rng.choice(["star", "tee"])))

    def undo(self) -> None:
        if not self.mine:
            return
        decision = self.mine.pop(self.rng.randrange(len(self.mine)))
        images = list(decision.sample_ids)
        self.note(begins="undo", images=images)
        refseg.undo(self.dataset, decision)
        self.begin()

    def decide_on_anybodys(self) -> None:
        chosen = self._predictions(NOBODY)
        decide = self.rng.choice([refseg.accept, refseg.reject])
        decide(self.dataset, [label_id for label_id, _ in chosen])

    def _decide(self, decide: Any) -> None:
        chosen = self._predictions(self.number)
        images = sorted({sample_id for _, sample_id in chosen})
        self.note(begins="decision", images=images)
        decision = decide([label_id for label_id, _ in chosen])
        self.mine = [*self.mine, decision][-5:]
        gone: dict[str, list[str]] = {}
        for one in decision.replaced:
            if one.is_gone:
                gone.setdefault(one.sample_id, []).append(one.label_id)
        written: dict[str, list[str]] = {}
        for field, ids in ((decision.accepted_field, decision.accepted_ids), (decision.rejected_field, decision.rejected_ids)):
            for image, own in images_that_hold(self.dataset, field, ids, images).items():
                written.setdefault(image, []).extend(own)
        if sum(map(len, written.values())) != len(decision.accepted_ids) + len(decision.rejected_ids):
            self.note(violation="a decision was acknowledged, and its labels are not there")
        self.note(decided=images, written=written, gone=gone)

    def _predictions(self, owner: int) -> list[tuple[str, str]]:
        self.dataset.reload()
        view = self.dataset.match({OWNER: owner})
        if not self.dataset.has_field("predictions"):
            raise DatasetError("There are no predictions yet.")
        pairs = [
            (label_id, sample_id)
            for sample_id, ids in zip(*view.values(["id", "predictions.detections.id"]), strict=True)
            for label_id in ids or ()
        ]
        return self.rng.sample(pairs, min(len(pairs), self.rng.randint(1, 6)))

    # All else

    def build(self) -> None:
        refseg.build_index(self.dataset, self.models, **QUIET)

    def segment(self) -> None:
        view = self.dataset if self.rng.random() < 0.5 else self.dataset.take(6, seed=self.rng.randrange(99))
        masks = str(self.folder / "masks") if self.rng.random() < 0.4 else None
        refseg.segment(view, "parts", model=self.models, min_confidence=0.0, mask_dir=masks, max_detections=6, **QUIET)

    def update(self) -> None:
        refseg.update(self.dataset, model=self.models, calibrates=self.rng.random() < 0.3, **QUIET)

    def learn(self) -> None:
        for _ in iter_learn(self.dataset, "parts", sources=SourceSettings(self.models), calibrates=False):
            pass

    def save_prototypes(self) -> None:
        kept = refseg.load_prototypes(self.dataset, "parts")
        refseg.save_prototypes(self.dataset, kept, "copy", overwrite=True)

    def inspect(self) -> None:
        refseg.inspect("parts", self.dataset, progress=False)

    def compact(self) -> None:
        refseg.open_index(self.dataset).compact()

    def tag(self) -> None:
        labels = self.dataset.match({OWNER: self.number}).values("ground_truth.detections.id", unwind=True)
        chosen = self.rng.sample(labels, min(3, len(labels)))
        refseg.tag_references(self.dataset, chosen, "ground_truth")

    def add(self) -> None:
        if len(self.dataset) >= MOST_IMAGES:
            return
        pool = self.dataset.match({OWNER: self.number})
        source = pool.take(1, seed=self.rng.randrange(999)).first()
        path = self.folder / "added" / f"{self.number}_{time.time_ns()}.png"
        path.write_bytes(Path(source.filepath).read_bytes())
        objects = [
            fo.Detection(label=label.label, bounding_box=label.bounding_box, mask=label.mask)
            for label in source.ground_truth.detections
        ]
        truth = fo.Detections(detections=objects)
        self.dataset.add_sample(fo.Sample(str(path), ground_truth=truth, **{OWNER: self.number}))

    def delete(self) -> None:
        own = self.dataset.match({OWNER: self.number})
        if len(self.dataset) <= LEAST_IMAGES or len(own) <= 3:
            return
        chosen = self.rng.choice(own.values("id"))
        self.note(begins="delete", images=[chosen])
        self.dataset.delete_samples([chosen])
        self.note(deleted=[chosen])


def main() -> None:
    """Act until killed: dataset, number, seed, log, folder."""
    import torch

    torch.set_num_threads(1)
    name, number, seed, log, folder = sys.argv[1:]
    with Path(log).open("a") as stream:
        user = User(name, int(number), int(seed), stream, Path(folder))
        user.begin()
        while True:
            user.act()


if __name__ == "__main__":
    main()
