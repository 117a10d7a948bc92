"""What a run of segment did, as a value that prints, and shows in a notebook, what a user wants to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..index import SkippedImage
from ..notebook import bars, facts, histogram, page, skips
from ..printing import counted, left_out_line
from ..progress import duration
from .changes import Changes, changes_page


@dataclass(frozen=True)
class SegmentReport:
    """What a run of segment did.

    Attributes:
        run_key: of the FiftyOne run that holds its settings.
        label_field: where the predictions are.
        num_images: images segmented; of a preview, images ranked.
        num_instances: instances found in them; of a preview, instances written.
        num_written: images whose predictions or presence were written; those of all others were the same already.
        num_from_index: images whose candidates came from the index.
        num_left_out: images that a preview left out because they are not indexed.
        skipped: images that could not be read; their earlier predictions stay as they are.
        seconds: wall-clock time, writing included.
        best: of a preview, sample id and best score of each image written, best first.
        index_trouble: why candidates could not be kept in the index, or None.
        changes: what differs from earlier predictions in the same field.
        num_gated: images that the presence gate kept from the segmenter, as a whole or in part; the index does not keep them.
        protected: ids of samples that stay as they are: somebody has labelled objects in the field that no run wrote.
        num_looked: images at whose best candidates this run looked a second time.
        num_unseen: images answered by the first look alone, because nobody could look again.
        look_trouble: why nobody could, or why second looks could not be kept; None where all is well.
        first_protected: path of the image of the first sample that stays as it is; "" where there is none.
        scores: for each class found how many of its instances have a score from 0 to 0.1, 0.1 to 0.2 and so on.
        lent_by: the preset whose index served, where it is another than the one that built the prototypes; None otherwise.
    """

    run_key: str
    label_field: str
    num_images: int
    num_instances: int
    num_written: int
    num_from_index: int
    num_left_out: int
    skipped: tuple[SkippedImage, ...]
    seconds: float
    best: tuple[tuple[str, float], ...] = ()
    index_trouble: str | None = None
    changes: Changes = field(default_factory=Changes)
    num_gated: int = 0
    protected: tuple[str, ...] = ()
    num_looked: int = 0
    num_unseen: int = 0
    look_trouble: str | None = None
    first_protected: str = ""
    scores: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    lent_by: str | None = None

    def _repr_html_(self) -> str:
        """Instances a class, how they score, what has changed, and what stands in the way."""
        found = {label: sum(counts) for label, counts in sorted(self.scores.items(), key=lambda item: -sum(item[1]))}
        rate = 1000 * self.seconds / max(1, self.num_images)
        return page(
            f"{counted(self.num_instances, 'instance')} in {counted(self.num_images, 'image')}",
            bars(found),
            histogram([sum(tenth) for tenth in zip(*self.scores.values(), strict=True)], 0, 1, "score"),
            changes_page(self.changes),
            facts(
                {
                    "field": self.label_field,
                    "run": self.run_key,
                    "time": f"{duration(self.seconds)}, {rate:.1f} ms an image",
                    "from the index": counted(self.num_from_index, "image"),
                    "written": f"{counted(self.num_written, 'image')}, all others are as they were",
                }
            ),
            *self._remarks(),
            skips(self.skipped),
        )

    def __str__(self) -> str:
        rate = 1000 * self.seconds / max(1, self.num_images)
        lines = [
            f"{counted(self.num_instances, 'instance')} in {counted(self.num_images, 'image')} in the field "
            f"{self.label_field!r} ({self.seconds:.1f} s, {rate:.1f} ms an image; run {self.run_key!r})",
            f"{counted(self.num_from_index, 'image')} came from the index; the answers of "
            f"{counted(self.num_written, 'image was', 'images were')} written, all others are as they were",
        ]
        if self.changes.num_samples:
            lines.append(f"Since the last run: {self.changes}, in {counted(self.changes.num_samples, 'image')}")
        lines += self._remarks()
        lines += [f"skipped {image.filepath}: {image.reason}" for image in self.skipped]
        return "\n".join(lines)

    def _remarks(self) -> list[str]:
        lines = []
        if self.lent_by:
            lines.append(
                f"The index of {self.lent_by!r} served, which has the same models: the prototypes' own preset has no index"
            )
        if self.protected:
            first = self.first_protected or self.protected[0]
            lines.append(
                f"{counted(len(self.protected), 'image')} kept as before, such as {first}: no run wrote some of the labels in "
                "this field there; move those to another field, or pass overwrite=True to lose them"
            )
        if self.num_left_out:
            lines.append(left_out_line(self.num_left_out))
        if self.num_gated:
            gated = counted(self.num_gated, "image was", "images were")
            lines.append(f"{gated} spared by the presence gate, as a whole or in part, and not kept")
        if self.num_looked:
            lines.append(f"Candidates of {counted(self.num_looked, 'image')} were looked at again")
        if self.num_unseen:
            unseen = counted(self.num_unseen, "image is", "images are")
            lines.append(f"{unseen} answered by the first look alone: nobody could look there again")
        if self.look_trouble:
            lines.append(f"Second looks: {self.look_trouble}")
        if self.index_trouble:
            lines.append(f"Candidates were not kept: {self.index_trouble}")
        return lines
