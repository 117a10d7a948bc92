"""How candidates become predictions: what a run of segment can be told."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType

from ..checks import names_of, names_or_none, path_of, require_flags, require_kind, require_names, require_whole, share_of
from ..errors import DatasetError
from ..matching import MatchSettings


@dataclass(frozen=True)
class SegmentSettings:
    """How candidates become predictions.

    Attributes:
        min_confidence: lower scores are not written; one number for all classes, or one for each class named, where the others
            take the calibrated one or the preset's, as all do with None.
        max_detections: the best so many of each image.
        mask_dir: write masks to PNG files under this folder instead of into the database.
        semantic_field: also write a `Segmentation` map to this field.
        preview: write the hundred images with the best scores alone, of those that are indexed.
        classes: only these are written; all others still compete for candidates. None for every class.
        presence_gate: candidates are computed only where a patch has this cosine with the prototype of a class that is written;
            None computes them everywhere.
        matching: how candidates are compared with prototypes; None as is the preset's default.
        presence_field: also write the probability that each class is in the image to this field, as `Classifications`.
    """

    min_confidence: float | Mapping[str, float] | None = None
    max_detections: int = 100
    mask_dir: str | os.PathLike[str] | None = None
    semantic_field: str | None = None
    preview: bool = False
    classes: tuple[str, ...] | None = None
    presence_gate: float | None = None
    matching: MatchSettings | None = None
    presence_field: str | None = None

    def __post_init__(self) -> None:
        require_whole(1, max_detections=self.max_detections)
        require_flags(preview=self.preview)
        require_names(or_none=True, semantic_field=self.semantic_field, presence_field=self.presence_field)
        require_kind((MatchSettings, NoneType), "MatchSettings or None", matching=self.matching)
        plain = {
            "min_confidence": _least_scores(self.min_confidence),
            "max_detections": int(self.max_detections),
            "mask_dir": None if self.mask_dir is None else path_of("mask_dir", self.mask_dir),
            "classes": names_or_none("classes", self.classes),
            "presence_gate": None if self.presence_gate is None else share_of("presence_gate", self.presence_gate),
        }
        for name, value in plain.items():
            # NumPy's numbers and paths could not be kept with the run.
            object.__setattr__(self, name, value)
        if self.classes is not None and not self.classes:
            raise DatasetError("There is no class to write: name at least one, or leave the choice of classes out.")

    @property
    def mask_folder(self) -> Path | None:
        """Where masks are written, whole: FiftyOne keeps paths as they are, and a relative one would be lost elsewhere."""
        return None if self.mask_dir is None else Path(self.mask_dir).expanduser().absolute()

    def require_classes(self, classes: Sequence[str]) -> None:
        """Refuse settings that name another class than these of the prototypes.

        Raises:
            DatasetError: one that is named is none of them; the message lists them.
        """
        own = self.min_confidence if isinstance(self.min_confidence, Mapping) else {}
        for name in (*own, *(self.classes or ())):
            if name not in classes:
                raise DatasetError(
                    f"The prototypes know no class {name!r}: choose from {', '.join(map(repr, classes))}, or build them again "
                    "with references of it."
                )

    def own_confidences(self, classes: Sequence[str]) -> dict[str, float]:
        """The least scores that somebody chose, by class."""
        chosen = self.min_confidence
        return dict(chosen) if isinstance(chosen, Mapping) else {} if chosen is None else dict.fromkeys(classes, chosen)

    def thresholds(self, classes: Sequence[str], defaults: Mapping[str, float]) -> dict[str, float]:
        """The least score of each of the prototypes' classes that is written; see require_classes.

        Args:
            classes: of the prototypes.
            defaults: the least score of each, for those without one of their own.
        """
        self.require_classes(classes)
        own = self.own_confidences(classes)
        return {name: own.get(name, defaults[name]) for name in classes if self.classes is None or name in self.classes}


def _least_scores(given: float | Mapping[str, float] | None) -> float | dict[str, float] | None:
    if isinstance(given, Mapping):
        names = names_of("min_confidence", list(given), like="classes")
        return {name: share_of(f"min_confidence of the class {name!r}", given[name]) for name in names}
    return None if given is None else share_of("min_confidence", given)


def check_mask_folder(settings: SegmentSettings) -> None:
    """Refuse a folder of masks that is a file, before the work."""
    place = settings.mask_folder
    if place is not None:
        taken = next((path for path in (place, *place.parents) if path.exists() and not path.is_dir()), None)
        if taken is not None:
            raise DatasetError(f"mask_dir must be a folder, but {taken} is a file: name another folder for the masks.")
