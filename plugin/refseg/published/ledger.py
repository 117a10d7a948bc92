"""What has been done of a benchmark: which runs are finished, what they gave, and the seconds they took."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..coco import write_json
from ..masks import ImageId
from ..models import Models
from ..regular_files import read_regular_text
from .job import Plan, Run, group_of
from .machine import code_digest, describe_machine, library_versions
from .suite import Part, Split


@dataclass
class Ledger:
    """The runs of a plan, and what has been done of them so far.

    The files of a run bear its digest: runs with other settings, models, images or annotations lie beside each other in one
    folder, and none is taken for another.

    Attributes:
        plan: of all runs.
        models: that run.
        done: what is kept of each run, by its tag.
        datasets: what is known of the index of each FiftyOne dataset, by name.
        skipped_images: path and reason of each target that is not looked at.
    """

    plan: Plan
    models: Models
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped_images: list[list[str]] = field(default_factory=list)
    _digests: dict[str, str] = field(default_factory=dict)
    _truths: dict[str, str] = field(default_factory=dict)

    @property
    def threshold(self) -> float:
        """Least score of what is pictured and written to datasets."""
        chosen = self.plan.job.min_score
        return self.models.preset.typical_threshold if chosen is None else chosen

    @property
    def seconds(self) -> dict[str, float]:
        """Of all runs, whenever they were done, by what they were spent on."""
        total: Counter[str] = Counter()
        for record in self.done.values():
            total.update(record["seconds"])
        return {name: round(value, 1) for name, value in total.items()}

    @cached_property
    def made_with(self) -> dict[str, Any]:
        """Versions and machine, for the record of each run."""
        return {
            "versions": library_versions(),
            "machine": describe_machine(str(self.models.device)),
            "dtype": str(self.models.dtype).removeprefix("torch."),
        }

    def path(self, folder: str, run: Run) -> Path:
        """Of a file of one run: of its record ("runs"), its results ("detections") or its prototypes."""
        suffix = ".safetensors" if folder == "prototypes" else ".json"
        return self.plan.job.out / folder / f"{run.tag}-{self.digest(run)}{suffix}"

    def ground_truth(self, part: Part, split: Split) -> Path:
        """Of the COCO file that the results of a split can be compared with."""
        digest = self._truth(part, split, part.targets.images)
        return self.plan.job.out / "ground_truth" / f"{'-'.join([*group_of(part, split), digest[:8]])}.json"

    def keep(self, run: Run, record: dict[str, Any]) -> None:
        """Write down what a run gave: from here on it is not repeated."""
        write_json(self.path("runs", run), record)
        self.done[run.tag] = record

    def finished(self, run: Run) -> dict[str, Any] | None:
        """What an earlier call kept of this very run; None where it is still to be done."""
        try:
            kept: Any = json.loads(read_regular_text(self.path("runs", run)))
        except (OSError, ValueError, RecursionError):
            return None
        return kept if isinstance(kept, dict) and self.path("detections", run).is_file() else None

    def digest(self, run: Run) -> str:
        """Eight hexadecimal digits that change with everything that a run's figures depend on, RefSeg's code among it."""
        if run.tag not in self._digests:
            self._digests[run.tag] = _digest(self._about(run))[:8]
        return self._digests[run.tag]

    def _about(self, run: Run) -> dict[str, Any]:
        job, folder, targets = self.plan.job, self.plan.suite.folder, run.part.targets
        asked: Iterable[ImageId] = {episode.query: None for episode in run.episodes} if run.episodes else targets.images
        shown = dict.fromkeys(run.pool.images[annotation["image_id"]].file_name for annotation in run.draw.annotations)
        return {
            "code": code_digest(),
            "benchmark": [self.plan.suite.name, self.plan.suite.metric, self.plan.suite.max_detections],
            "folder": str(folder),
            "truth": self._truth(run.part, run.split, asked),
            "targets": [_state(folder / targets.images[image_id].file_name) for image_id in asked],
            "references": list(run.draw.annotations),
            "shown": [_state(folder / name) for name in shown],
            "episodes": [[episode.category_id, episode.query, list(episode.supports)] for episode in run.episodes],
            "model": [self.models.preset.name, self.models.revisions, str(self.models.dtype)],
            "matching": None if job.matching is None else job.matching.as_dict(),
            "min_score": self.threshold if run.episodes else None,
            "pixels": self.plan.pixels_of(run.part).as_lists(),
        }

    def _truth(self, part: Part, split: Split, image_ids: Iterable[ImageId]) -> str:
        """Of images and the objects of a split in them."""
        asked = list(image_ids)
        key = "-".join([*group_of(part, split), _digest(asked)])
        if key not in self._truths:
            wanted, classes = set(asked), set(split.category_ids)
            images = [[image.id, image.file_name, image.image_hw] for image in map(part.targets.images.__getitem__, asked)]
            objects = [
                annotation
                for annotation in part.targets.annotations
                if annotation["category_id"] in classes and annotation["image_id"] in wanted
            ]
            names = [[category_id, part.targets.categories[category_id]] for category_id in split.category_ids]
            groups = {name: list(ids) for name, ids in split.groups.items()}
            known = {
                str(image_id): [sorted(facts.absent), sorted(facts.not_exhaustive)]
                for image_id, facts in (part.federated or {}).items()
                if image_id in wanted
            }
            self._truths[key] = _digest([images, objects, names, groups, known])
        return self._truths[key]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _state(path: Path) -> list[Any]:
    """What changes with a file: its name, size and time of change."""
    try:
        file = os.stat(path)
    except OSError:
        return [path.name]
    return [path.name, file.st_size, file.st_mtime_ns]
