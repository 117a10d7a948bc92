"""What an evaluation comes to."""

from __future__ import annotations

from dataclasses import dataclass

from ..coco import (
    AveragePrecision,
    format_table,
    precision_page,
)
from ..notebook import PICTURES, details, facts, page
from ..printing import counted, listing
from .confusion import Cell

LISTED = 10
"""Labels left out that a printed report names."""
PAIRS_LISTED = 5
"""Pairs of classes that a printed report names."""


@dataclass(frozen=True)
class ClassFigures:
    """What an evaluation says of one class.

    Attributes:
        name: of the class.
        mask_ap50: average precision of masks at IoU 0.50; None where it cannot be measured.
        box_ap50: the same of boxes.
        num_truth: objects of the class, crowds not counted.
        num_found: those of them on which a prediction of the class falls, from an IoU of 0.50 on.
        num_predictions: predictions of the class from `least` on, without those in a crowd.
        least: the score from which on predictions count: that of the run that wrote them, 0 where none is known.
    """

    name: str
    mask_ap50: float | None
    box_ap50: float | None
    num_truth: int
    num_found: int
    num_predictions: int
    least: float = 0.0

    @property
    def precision(self) -> float | None:
        """Share of the predictions that are right; None without predictions."""
        return self.num_found / self.num_predictions if self.num_predictions else None

    @property
    def recall(self) -> float | None:
        """Share of the objects that were found; None without objects."""
        return self.num_found / self.num_truth if self.num_truth else None


@dataclass(frozen=True)
class EvaluationReport:
    """COCO's figures; None where nothing can be measured, such as masks where ground truth has boxes alone.

    Attributes:
        mask_ap: average precision of masks by pycocotools, mean over IoU 0.50 to 0.95 and the classes.
        mask_ap50: at IoU 0.50.
        mask_ap75: at IoU 0.75.
        mask_ap_small: over objects under 32² pixels.
        mask_ap_medium: over objects of 32² to 96² pixels.
        mask_ap_large: over larger objects.
        box_ap: the same of boxes; as in COCO, an object's size is that of its mask.
        box_ap50: at IoU 0.50.
        box_ap75: at IoU 0.75.
        box_ap_small: over objects under 32² pixels.
        box_ap_medium: over objects of 32² to 96² pixels.
        box_ap_large: over larger objects.
        per_class: for each class its mask_ap and box_ap.
        fiftyone_mask_ap: mAP of masks by FiftyOne, under eval_key.
        num_images: images compared.
        num_ground_truth: objects in them, crowds not counted.
        num_predictions: predictions in them.
        eval_key: of FiftyOne's evaluation; None where FiftyOne cannot compare the two fields.
        skipped: path and reason of each image left out, because neither its file nor its metadata tells its size.
        left_out: path, label id, and in words what it is and why, of each object or prediction left out, because it has no
            class, no place in its image, or a confidence that is no number.
        by_box: path, label id, and in words what it is and why, of each that counts by its box alone, because it has no mask
            as others of its field have, or one that cannot be read or holds no pixel.
        without_references: classes of ground truth of which the run that wrote the predictions had no reference; they count as
            never found.
        notes: what else was assumed, a sentence each.
        hint: advice where annotations seem to be made on images as they are stored, not upright; or "".
        classes: figures of each class of either field, by name.
        cells: objects by what they are and what they were taken for, the most frequent first.
        not_compared: objects of ground truth by class that were left out because other classes were asked for.
        num_outside: images of the dataset that were not in the view.
    """

    mask_ap: float | None
    mask_ap50: float | None
    mask_ap75: float | None
    mask_ap_small: float | None
    mask_ap_medium: float | None
    mask_ap_large: float | None
    box_ap: float | None
    box_ap50: float | None
    box_ap75: float | None
    box_ap_small: float | None
    box_ap_medium: float | None
    box_ap_large: float | None
    per_class: dict[str, dict[str, float | None]]
    fiftyone_mask_ap: float | None
    num_images: int
    num_ground_truth: int
    num_predictions: int
    eval_key: str | None
    skipped: tuple[tuple[str, str], ...] = ()
    left_out: tuple[tuple[str, str, str], ...] = ()
    by_box: tuple[tuple[str, str, str], ...] = ()
    without_references: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    hint: str = ""
    classes: tuple[ClassFigures, ...] = ()
    cells: tuple[Cell, ...] = ()
    not_compared: tuple[tuple[str, int], ...] = ()
    num_outside: int = 0

    @property
    def confused(self) -> tuple[Cell, ...]:
        """Pairs of different classes, those most often confused first."""
        return tuple(cell for cell in self.cells if cell.is_confusion)

    def _repr_html_(self) -> str:
        """The figures of masks and boxes as a table, and those of each class as bars."""
        masks = {} if self.mask_ap is None else {"masks": self._figures("mask")}
        counts = {"predictions": self.num_predictions, "objects": self.num_ground_truth, "images": self.num_images}
        remarks = [*self.notes, *([self.hint] if self.hint else [])]
        if self.without_references:
            remarks.insert(0, f"Without a reference, so never found: {listing(self.without_references)}")
        left_out = [f"{path}: {why} ({one})" for path, one, why in self.left_out]
        return page(
            "Evaluation by COCO's rules",
            precision_page({**masks, "boxes": self._figures("box")}),
            facts({**counts, "FiftyOne's mask mAP": self.fiftyone_mask_ap, "evaluation": self.eval_key}),
            *remarks[:PICTURES],
            details(f"{counted(len(self.skipped), 'image')} skipped", [f"{path}: {why}" for path, why in self.skipped]),
            details(f"{counted(len(self.left_out), 'label')} left out", left_out),
        )

    def __str__(self) -> str:
        masks = None if self.mask_ap is None else self._figures("mask")
        lines = [
            f"{counted(self.num_predictions, 'prediction')}, {counted(self.num_ground_truth, 'object')} in "
            f"{counted(self.num_images, 'image')}",
            format_table(masks, self._figures("box")),
        ]
        if self.fiftyone_mask_ap is not None:
            lines.append(f"\nFiftyOne's mask mAP: {self.fiftyone_mask_ap:.3f} (evaluation {self.eval_key!r})")
        if self.confused:
            pairs = [f"{one.truth} taken for {one.predicted} {one.number}" for one in self.confused]
            lines.append(f"Most confused: {listing(pairs, PAIRS_LISTED)}")
        if self.without_references:
            lines.append(f"Without a reference, so never found: {', '.join(self.without_references)}")
        lines += [*self.notes, *([self.hint] if self.hint else [])]
        lines += [f"left out {path}: {reason}" for path, reason in self.skipped]
        lines += [f"left out of {path} {reason} ({label_id})" for path, label_id, reason in self.left_out[:LISTED]]
        if len(self.left_out) > LISTED:
            lines.append(f"left out {len(self.left_out) - LISTED} more labels, see left_out")
        return "\n".join(lines)

    def _figures(self, kind: str) -> AveragePrecision:
        names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
        ap, ap50, ap75, small, medium, large = (getattr(self, f"{kind}_{name}") for name in names)
        per_class = {label: scores[f"{kind}_ap"] for label, scores in self.per_class.items()}
        return AveragePrecision(ap, ap50, ap75, small, medium, large, per_class)
