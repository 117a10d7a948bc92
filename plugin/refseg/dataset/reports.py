"""What an index holds, and what is wrong with it, in words."""

from __future__ import annotations

from dataclasses import dataclass

from ..notebook import GREEN, GREY, ORANGE, details, facts, page, stacked
from ..printing import as_size, counted


@dataclass(frozen=True)
class IndexStatus:
    """How an index and its dataset compare.

    Attributes:
        uri: where the index lies.
        model: the preset's name.
        exact: near-duplicates are kept.
        num_samples: images of the dataset.
        num_indexed: of these, images that are indexed as they are now.
        num_changed: of these, images whose file is another than when it was indexed, or gone.
        num_deleted: indexed images that the dataset no longer has.
        num_candidates: candidates of all indexed images.
        num_unread_rows: candidates that were replaced or left over; compact removes them.
        num_bytes: size of the index.
        tiles: images were looked at in tiles.
        num_looks: candidates that were looked at again.
    """

    uri: str
    model: str
    exact: bool
    num_samples: int
    num_indexed: int
    num_changed: int
    num_deleted: int
    num_candidates: int
    num_unread_rows: int
    num_bytes: int
    tiles: bool = False
    num_looks: int = 0

    @property
    def bytes_per_image(self) -> int:
        """Size of the index by the number of its images."""
        return self.num_bytes // max(1, self.num_indexed + self.num_changed + self.num_deleted)

    def _repr_html_(self) -> str:
        """A bar of the images that are indexed, and what they take."""
        missing = self.num_samples - self.num_indexed - self.num_changed
        colors = {"indexed": GREEN, "changed or gone": ORANGE, "not indexed": GREY}
        kinds = [kind for kind, is_so in (("in tiles", self.tiles), ("near-duplicates kept", self.exact)) if is_so]
        return page(
            f"Index for the model {self.model!r}",
            stacked(
                colors,
                {counted(self.num_samples, "image"): (self.num_indexed, self.num_changed, missing)},
                most=self.num_samples,
            ),
            facts(
                {
                    "kind": ", ".join(kinds),
                    "candidates": self.num_candidates,
                    "second looks": self.num_looks,
                    "size": f"{as_size(self.num_bytes)}, {as_size(self.bytes_per_image)} an image",
                    "to be freed by compact": ", ".join(
                        counted(number, what)
                        for number, what in ((self.num_deleted, "image"), (self.num_unread_rows, "candidate"))
                        if number
                    ),
                    "place": self.uri,
                }
            ),
            "Build the index again to renew what has changed." if self.num_changed else None,
        )

    def __str__(self) -> str:
        lines = [
            f"{self.num_indexed} of {counted(self.num_samples, 'image is', 'images are')} indexed for the model {self.model!r}"
            + (", in tiles" if self.tiles else "")
            + (", near-duplicates kept" if self.exact else ""),
            f"{counted(self.num_candidates, 'candidate')}, {counted(self.num_looks, 'second look')}, "
            f"{self.num_bytes / 1e6:.1f} MB, {self.bytes_per_image / 1e3:.1f} KB an image; {self.uri}",
        ]
        if self.num_changed:
            changed = counted(self.num_changed, "image has changed or is gone", "images have changed or are gone")
            lines.append(f"{changed}: build the index again")
        if self.num_deleted or self.num_unread_rows:
            unread = counted(self.num_unread_rows, "candidate is", "candidates are")
            lines.append(
                f"{counted(self.num_deleted, 'image')} left the dataset and {unread} read by nobody: compact gives their space "
                "back"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class VerifyReport:
    """What verify found.

    Attributes:
        num_images: images looked at.
        num_candidates: candidates looked at.
        damaged: sample id of each image that is damaged, and file name and reason; they count as not indexed from now on.
    """

    num_images: int
    num_candidates: int
    damaged: tuple[tuple[str, str], ...]

    def _repr_html_(self) -> str:
        """What was read, and what is damaged."""
        sound = self.num_images - len(self.damaged)
        return page(
            "Index verified",
            stacked({"sound": GREEN, "damaged": ORANGE}, {counted(self.num_images, "image"): (sound, len(self.damaged))}),
            facts({"candidates": self.num_candidates}),
            details(f"{counted(len(self.damaged), 'image')} damaged", [f"{why} (sample {one})" for one, why in self.damaged]),
        )

    def __str__(self) -> str:
        lines = [
            f"{counted(self.num_images, 'image')} read, with {counted(self.num_candidates, 'candidate')}: "
            f"{len(self.damaged)} damaged"
        ]
        lines += [f"{reason} (sample {sample_id})" for sample_id, reason in self.damaged]
        return "\n".join(lines)
