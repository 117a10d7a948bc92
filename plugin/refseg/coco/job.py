"""What `refseg coco` is asked to do, and what it says it did. No FiftyOne."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..masks import Refusal, summary_of
from ..matching import MatchSettings
from ..notebook import PICTURES, details, facts, heading, page, table
from ..printing import counted
from ..progress import duration
from .figures import AveragePrecision, format_table, precision_page


@dataclass(frozen=True)
class CocoJob:
    """What `refseg coco` is asked to do.

    Attributes:
        images: folder of the images of references and targets.
        references: COCO file with the objects to show.
        out: where the COCO results go.
        targets: COCO file of the images to segment; by default all under `images`.
        report: where the report goes as JSON.
        prototypes: where the prototypes go, with all that was learnt from images that are known.
        model: the preset's name.
        device: see `refseg.load_models`.
        sam2_path: see `refseg.load_models`.
        dinov2_path: see `refseg.load_models`.
        min_score: lower scores are left out; by default 0.5 where scores are probabilities, else the preset's threshold.
        max_detections: the best so many of each image.
        num_workers: threads that decode images; 0 for none.
        tiles: look at each image larger than the segmenter's input in overlapping tiles too.
        presence_gate: spare the segmenter images, or tiles, in which no patch has this cosine with a prototype.
        matching: how candidates are compared with prototypes; by default as suits the preset.
        negatives: COCO file of objects that are taken for a class and are none; see `refseg.build_prototypes`.
        empty: folder, or COCO file, of images known to hold none of the classes.
        semantic: folder for a map of classes of each image.
        strict: an annotation that cannot be used is an error; by default it is left out and listed.
        pixel_range: see `refseg.build_index`; by default found from all images.
        channels: see `refseg.build_index`.
        turned: see `refseg.build_prototypes`.
    """

    images: Path
    references: Path
    out: Path
    targets: Path | None = None
    report: Path | None = None
    prototypes: Path | None = None
    model: str = "large"
    device: str | None = None
    sam2_path: Path | None = None
    dinov2_path: Path | None = None
    min_score: float | None = None
    max_detections: int = 100
    num_workers: int | None = None
    tiles: bool = False
    presence_gate: float | None = None
    matching: MatchSettings | None = None
    negatives: Path | None = None
    empty: Path | None = None
    semantic: Path | None = None
    strict: bool = False
    pixel_range: tuple[float, float] | None = None
    channels: tuple[int, ...] | None = None
    turned: bool = False


@dataclass(frozen=True)
class CocoReport:
    """What was done.

    Attributes:
        out: the results file.
        model: the preset.
        shots: references of each class.
        num_images: images segmented.
        num_instances: entries of the results file.
        seconds: for calibrating and segmenting, models loaded.
        skipped_images: path and reason of each image that could not be read.
        skipped_references: annotation id of each reference that could not be used, and in words what it is and why.
        mask: scores of masks; None without ground truth masks.
        box: scores of boxes; None without ground truth.
        num_gated: images that the presence gate kept from the segmenter, as a whole or in part.
        thresholds: the least score of each class that is written.
        calibrated: whether scores are probabilities, learnt from the images of references.
        num_empty: images known to be empty that were looked at.
        num_mined: of the mistakes made there, those that became negatives.
        left_out: annotations of all files that cannot be used, and masks that cannot of objects that count by their box.
        notes: what was read otherwise than it is written, and what may be wrong with the files, a sentence each.
        pixel_range: the values taken for black and white in images that do not say it; None where there are none.
    """

    out: str
    model: str
    shots: dict[str, int]
    num_images: int
    num_instances: int
    seconds: float
    skipped_images: tuple[tuple[str, str], ...]
    skipped_references: tuple[tuple[str, str], ...]
    mask: AveragePrecision | None = None
    box: AveragePrecision | None = None
    num_gated: int = 0
    thresholds: dict[str, float] = field(default_factory=dict)
    calibrated: bool = False
    num_empty: int = 0
    num_mined: int = 0
    left_out: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    pixel_range: tuple[float, float] | None = None

    def _repr_html_(self) -> str:
        """What was written, the figures where there is ground truth, and what was skipped."""
        figures = {name: one for name, one in (("masks", self.mask), ("boxes", self.box)) if one is not None}
        meaning = "probabilities" if self.calibrated else "similarities"
        skipped = [f"{path}: {why}" for path, why in self.skipped_images]
        return page(
            f"{counted(self.num_instances, 'instance')} in {counted(self.num_images, 'image')}",
            precision_page(figures) if figures else None,
            heading("References, and the least score that is written"),
            table(
                ("class", "references", "least score"),
                [(name, number, self.thresholds.get(name)) for name, number in self.shots.items()],
            ),
            facts(
                {
                    "written to": self.out,
                    "model": self.model,
                    "scores": meaning,
                    "time": duration(self.seconds),
                    "empty images": self.num_empty or None,
                    "negatives mined there": self.num_mined or None,
                }
            ),
            *([summary_of(self.left_out), *self.notes][:PICTURES]),
            details(f"{counted(len(skipped), 'image')} skipped", skipped),
            details(
                f"{counted(len(self.skipped_references), 'reference')} skipped",
                [f"{why} ({one})" for one, why in self.skipped_references],
            ),
        )

    def __str__(self) -> str:
        each = self.seconds / max(1, self.num_images)
        text = (
            f"{counted(self.num_instances, 'instance')} in {counted(self.num_images, 'image')} written to {self.out} "
            f"({self.seconds:.1f} s, {each:.2f} s an image)"
        )
        if self.num_gated:
            gated = counted(self.num_gated, "of them was", "of them were")
            text += f"; {gated} spared by the presence gate, as a whole or in part"
        least = ", ".join(f"{name} {value:.2f}" for name, value in self.thresholds.items())
        text += f"\n{'Scores are probabilities; least' if self.calibrated else 'Least'} scores: {least}"
        if self.pixel_range is not None:
            text += f"\nPixels of more than 8 bits run from {self.pixel_range[0]:g} to {self.pixel_range[1]:g}"
        if self.num_empty:
            mined = counted(self.num_mined, "negative was", "negatives were")
            text += f"\n{mined} mined from {counted(self.num_empty, 'image')} known to be empty"
        for line in (summary_of(self.left_out), *self.notes):
            text += f"\n{line}" if line else ""
        return text if self.box is None else f"{text}\n\n{format_table(self.mask, self.box)}"
