"""What has been done of a benchmark: which runs are finished, what they gave, and the seconds they took."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__
from ..coco import write_json
from ..models import Models
from .job import Plan, Run, group_of
from .suite import Part, Split


@dataclass
class Ledger:
    """The runs of a plan, and what has been done of them so far.

    Attributes:
        plan: of all runs.
        models: that run.
        done: what is kept of each run, by its tag.
        datasets: what is known of the index of each FiftyOne dataset, by name.
        skipped_images: path and reason of each target that cannot be read.
    """

    plan: Plan
    models: Models
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped_images: list[list[str]] = field(default_factory=list)

    @property
    def threshold(self) -> float:
        """Least score of what is pictured and written to datasets."""
        chosen = self.plan.job.min_score
        return self.models.preset.min_confidence if chosen is None else chosen

    def path(self, folder: str, run: Run, suffix: str) -> Path:
        """Of a file of one run."""
        return self.plan.job.out / folder / f"{run.tag}{suffix}"

    def ground_truth(self, part: Part, split: Split) -> Path:
        """Of the COCO file that the results of a split can be compared with."""
        return self.plan.job.out / "ground_truth" / f"{'-'.join(group_of(part, split))}.json"

    @property
    def seconds(self) -> dict[str, float]:
        """Of all runs, whenever they were done, by what they were spent on."""
        total: Counter[str] = Counter()
        for record in self.done.values():
            total.update(record["seconds"])
        return {name: round(value, 1) for name, value in total.items()}

    def keep(self, run: Run, record: dict[str, Any]) -> None:
        """Write down what a run gave."""
        write_json(self.path("runs", run, ".json"), record)
        self.done[run.tag] = record

    def finished(self, run: Run) -> dict[str, Any] | None:
        """What an earlier call kept of this very run; None where it is still to be done."""
        try:
            kept: Any = json.loads(self.path("runs", run, ".json").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError):
            return None
        same = isinstance(kept, dict) and kept.get("digest") == self.digest(run)
        return kept if same and self.path("detections", run, ".json").is_file() else None

    def digest(self, run: Run) -> str:
        """Sixteen hexadecimal digits that change with everything that a run's figures depend on."""
        chosen = [
            [annotation.get("id"), annotation["image_id"], annotation["category_id"], annotation.get("bbox")]
            for annotation in run.draw.annotations
        ]
        images = [[image.id, image.file_name, image.image_hw] for image in run.part.targets.images.values()]
        job = self.plan.job
        about = {
            "version": __version__,
            "benchmark": self.plan.suite.name,
            "folder": str(self.plan.suite.folder),
            "classes": list(run.split.category_ids),
            "references": chosen,
            "episodes": [[episode.category_id, episode.query, list(episode.supports)] for episode in run.episodes],
            "images": hashlib.sha256(json.dumps(images).encode()).hexdigest(),
            "model": [self.models.preset.name, self.models.revisions, str(self.models.dtype)],
            "matching": None if job.matching is None else job.matching.as_dict(),
            "max_detections": self.plan.suite.max_detections,
            "min_score": self.threshold if run.episodes else None,
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
