"""What else is to be seen in the images of references, and in images known to be empty: candidates that teach where to say no.

Needs the candidates of these images, from an index or proposed anew; choosing among them takes about a millisecond an image.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from torch import Tensor

from ..candidates import Candidates, PackedCandidates, pack
from ..errors import PrototypeError, ShapeError
from ..masks import fitting_codes
from ..printing import counted, one_line
from .checking import listed_names, require_finite
from .negatives import joined_looks

SHOWS_IOU = 0.5
"""A candidate shows a reference when its mask has this IoU with the reference's."""
MAX_INSIDE = 0.1
"""A candidate of which less lies inside any known object overlaps none."""
SAME_PLACE_IOU = 0.5
"""Of candidates whose boxes have more IoU than this only one counts, as after the NMS of matching."""
MAX_AN_IMAGE = 48
"""Candidates around references that are kept of one image, those of the highest predicted IoU."""


@dataclass(frozen=True, eq=False)
class Shapes:
    """Where candidates lie, so that those of one image can be ranked as in a run.

    Attributes:
        codes: N run-length codes, see `refseg.candidates.packing.PackedCandidates`.
        boxes: (N, 4) int32 xyxy cells, far edge included.
        predicted_iou: (N,) float32.
        sides: (N,) int32, cells a side of the grid of the image of each.
    """

    codes: tuple[bytes, ...]
    boxes: Tensor
    predicted_iou: Tensor
    sides: Tensor

    __repr__ = one_line

    def __post_init__(self) -> None:
        if not len(self.codes) == len(self.boxes) == len(self.predicted_iou) == len(self.sides):
            raise ShapeError(
                f"Shapes need one code, box, predicted IoU and side each, but there are {len(self.codes)}, {len(self.boxes)}, "
                f"{len(self.predicted_iou)} and {len(self.sides)}."
            )
        require_finite({"Predicted IoUs of surroundings": self.predicted_iou})

    def take(self, rows: Sequence[int]) -> Shapes:
        """Some, in this order."""
        chosen = list(rows)
        return Shapes(
            tuple(self.codes[row] for row in chosen), self.boxes[chosen], self.predicted_iou[chosen], self.sides[chosen]
        )

    @classmethod
    def join(cls, parts: Sequence[Shapes]) -> Shapes:
        """Those of several images, at least one."""
        columns = [torch.cat([getattr(part, name) for part in parts]) for name in ("boxes", "predicted_iou", "sides")]
        return cls(tuple(code for part in parts for code in part.codes), *columns)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Candidates of images whose objects are known.

    Attributes:
        features: (N, C) float16, unit length, pooled features as of any candidate.
        images: key of the image of each, see image_key.
        shown: id of the reference that each shows; "" for one that shows none.
        parts: id of a reference of which each is a part, or a part and more, without showing it; "" for one that overlaps no
            known object, or shows one. () where there are no parts.
        shapes: where they lie; None in files of earlier versions.
        looks: (N, D) float16 second looks, zeros where nobody has looked again; None where nobody has at any.
    """

    features: Tensor
    images: tuple[str, ...]
    shown: tuple[str, ...]
    parts: tuple[str, ...] = ()
    shapes: Shapes | None = None
    looks: Tensor | None = None

    def __repr__(self) -> str:
        showing, images = sum(map(bool, self.shown)), len(set(self.images))
        return f"Surroundings({len(self)} candidates of {counted(images, 'image')}: {showing} show references)"

    def __post_init__(self) -> None:
        if not len(self.features) == len(self.images) == len(self.shown):
            raise ShapeError(
                f"Surroundings need one feature, image and reference each, but there are {len(self.features)}, "
                f"{len(self.images)} and {len(self.shown)}."
            )
        codes = None if self.shapes is None else self.shapes.codes
        for what, values in (("part", self.parts or None), ("second look", self.looks), ("shape", codes)):
            number = len(self.images) if values is None else len(values)
            if number != len(self.images):
                raise ShapeError(
                    f"Surroundings need one {what} each or none at all, but there are {number} of {len(self.images)}."
                )
        require_finite({"Features of surroundings": self.features, "Second looks of surroundings": self.looks})

    def __len__(self) -> int:
        return len(self.images)

    @property
    def part_of_each(self) -> tuple[str, ...]:
        """Id of a reference of which each is a part; "" for one that is none."""
        return self.parts or ("",) * len(self)

    @property
    def whole(self) -> Surroundings:
        """Those that are no parts: that show references, or overlap no known object."""
        return self.take([row for row, name in enumerate(self.part_of_each) if not name]) if any(self.parts) else self

    def candidates(self, rows: Sequence[int]) -> PackedCandidates:
        """Those of one image as a run has them, without what is needed to cut their masks out; only where there are shapes."""
        assert self.shapes is not None
        own = self.shapes.take(rows)
        side = int(own.sides[0]) if len(own.sides) else 1
        codes = pa.array(own.codes, pa.binary())
        edges = pa.array([b""] * len(codes), pa.binary())
        features = self.features[list(rows)].float()
        return PackedCandidates(codes, edges, own.boxes.float(), own.predicted_iou, features, (side, side), side)

    def add(self, other: Surroundings) -> Surroundings:
        """These and other's together; an image in both is as in other."""
        newer = set(other.images)
        own = self.take([row for row, image in enumerate(self.images) if image not in newer])
        return Surroundings.join([own, other])

    @classmethod
    def join(cls, parts: Sequence[Surroundings]) -> Surroundings:
        """Those of several images, at least one, none of them twice."""
        shapes = [part.shapes for part in parts if part.shapes is not None]
        return cls(
            torch.cat([part.features for part in parts]),
            tuple(image for part in parts for image in part.images),
            tuple(name for part in parts for name in part.shown),
            tuple(name for part in parts for name in part.part_of_each) if any(part.parts for part in parts) else (),
            Shapes.join(shapes) if len(shapes) == len(parts) else None,
            joined_looks(*((part.looks, len(part)) for part in parts)),
        )

    def remove(self, ids: Collection[str]) -> Surroundings:
        """Without what shows some references, and parts of it: their objects are no references any more, but no strangers."""
        names = zip(self.shown, self.part_of_each, strict=True)
        return self.take([row for row, (name, part) in enumerate(names) if name not in ids and part not in ids])

    def file_parts(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a file holds of them: JSON and tensors."""
        about = {"images": self.images, "shown": self.shown, "parts": self.parts}
        tensors = {"surroundings": self.features}
        if self.looks is not None:
            tensors["surroundings_looks"] = self.looks
        if self.shapes is not None:
            lengths = [len(code) for code in self.shapes.codes]
            tensors |= {
                "surroundings_codes": torch.from_numpy(np.frombuffer(b"".join(self.shapes.codes), np.uint8).copy()),
                "surroundings_lengths": torch.tensor(lengths, dtype=torch.int32),
                "surroundings_boxes": self.shapes.boxes,
                "surroundings_iou": self.shapes.predicted_iou,
                "surroundings_sides": self.shapes.sides,
            }
        return about, tensors

    @classmethod
    def from_parts(cls, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Surroundings:
        """From what `file_parts` gave, in this or an earlier version."""
        shapes = None
        if "surroundings_codes" in tensors:
            boxes, iou, sides = (tensors[f"surroundings_{name}"] for name in ("boxes", "iou", "sides"))
            codes = _codes_in(tensors["surroundings_codes"], tensors["surroundings_lengths"], sides)
            shapes = Shapes(codes, boxes, iou, sides)
        images, shown, parts = (listed_names(name, about.get(name, [])) for name in ("images", "shown", "parts"))
        return cls(tensors["surroundings"], images, shown, parts, shapes, tensors.get("surroundings_looks"))

    def take(self, rows: Sequence[int]) -> Surroundings:
        """Some, in this order."""
        chosen = list(rows)
        return Surroundings(
            self.features[chosen],
            tuple(self.images[row] for row in chosen),
            tuple(self.shown[row] for row in chosen),
            tuple(self.parts[row] for row in chosen) if self.parts else (),
            None if self.shapes is None else self.shapes.take(chosen),
            None if self.looks is None else self.looks[chosen],
        )


def joined_surroundings(surroundings: Surroundings | None, others: Surroundings | None) -> Surroundings | None:
    """Those of both, see Surroundings.add; None where neither is known."""
    if surroundings is None or others is None:
        return others if surroundings is None else surroundings
    return surroundings.add(others)


@dataclass(frozen=True, eq=False)
class KnownObject:
    """An object of an image whose candidates are looked at.

    Attributes:
        id: of the reference; "" for an object that is labelled and no reference: what shows it is left out.
        mask: (H, W) bool, of the whole image, at whatever size.
    """

    id: str
    mask: Tensor

    __repr__ = one_line


def image_key(path: str) -> str:
    """What stands for an image among references and their surroundings: twelve hexadecimal digits of its path."""
    return hashlib.sha256(os.path.abspath(path).encode(errors="surrogatepass")).hexdigest()[:12]


def look_around(
    candidates: Candidates | PackedCandidates,
    objects: Sequence[KnownObject],
    image: str,
    looks: Callable[[Tensor, int], Tensor] | None = None,
) -> Surroundings:
    """Of the candidates of one image, those that show references, parts of references, and those that overlap no known object.

    Of the candidates that show a reference the one of the highest predicted IoU stands for it, as the NMS of matching would
    have it. Those that overlap an object that is no reference are left out.

    Args:
        candidates: of the image.
        objects: every object that is known to lie in it, of any class; none for an empty image.
        image: its key.
        looks: gives second looks, (n, D) float32, at n rows of the candidates, of which so many at the beginning show
            references; zeros for those that are not worth one. None where nobody looks again.
    """
    from torchvision.ops import nms  # takes two seconds, and nobody's first click should wait for it

    packed = candidates if isinstance(candidates, PackedCandidates) else pack(candidates)
    iou, inside = _overlaps(packed, objects)
    quality = packed.predicted_iou.numpy()
    shown: dict[int, str] = {}
    for column, known in enumerate(objects):
        showing = np.flatnonzero(iou[:, column] >= SHOWS_IOU)
        if known.id and len(showing):
            shown.setdefault(int(showing[quality[showing].argmax()]), known.id)
    parts = _parts(iou, inside, objects)
    apart = nms(packed.boxes, packed.predicted_iou, SAME_PLACE_IOU).tolist()
    others = [row for row in apart if row not in shown and parts[row] is not None][:MAX_AN_IMAGE]
    rows = [*shown, *others]
    shapes = Shapes(
        tuple(packed.codes[row].as_py() for row in rows),
        packed.boxes[rows].int(),
        packed.predicted_iou[rows],
        torch.full((len(rows),), packed.grid_side, dtype=torch.int32),
    )
    return Surroundings(
        packed.features[rows].half(),
        (image,) * len(rows),
        (*shown.values(), *("" for _ in others)),
        (*("" for _ in shown), *(parts[row] or "" for row in others)),
        shapes,
        None if looks is None else looks(torch.tensor(rows, dtype=torch.int64), len(shown)).half(),
    )


def _codes_in(joined: Tensor, lengths: Tensor, sides: Tensor) -> tuple[bytes, ...]:
    """The run-length codes of a file, each checked: pycocotools makes anything of one that is damaged.

    Raises:
        PrototypeError: one does not fit its grid.
    """
    whole, ends = joined.numpy().tobytes(), [0, *lengths.cumsum(0).tolist()]
    codes = tuple(whole[start:stop] for start, stop in pairwise(ends))
    sizes = [(side, side) for side in sides.tolist()]
    is_whole = ends[-1] == len(whole) and all(codes) and len(codes) == len(sizes)
    if not is_whole or not all(fitting_codes([code.decode("latin-1") for code in codes], sizes)):
        raise PrototypeError("A mask of the surroundings is damaged: calibrate the prototypes again.")
    return codes


def _parts(iou: NDArray[np.float64], inside: NDArray[np.float64], objects: Sequence[KnownObject]) -> list[str | None]:
    """For each candidate the reference of which it is a part; "" for one that overlaps no object, None for one left out."""
    parts: list[str | None] = []
    for own_iou, own_inside in zip(iou, inside, strict=True):
        columns = np.flatnonzero(own_inside >= MAX_INSIDE)
        if not len(columns):
            parts.append("")
        elif all(objects[column].id for column in columns.tolist()) and own_iou.max() < SHOWS_IOU:
            parts.append(objects[int(columns[own_inside[columns].argmax()])].id)
        else:
            parts.append(None)
    return parts


def _overlaps(packed: PackedCandidates, objects: Sequence[KnownObject]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, R) IoU of each candidate with each object on the mask grid, and how much of the candidate lies inside it."""
    if not len(packed) or not objects:
        empty = np.zeros((len(packed), len(objects)))
        return empty, empty
    size = [packed.grid_side, packed.grid_side]
    codes = [{"size": size, "counts": code} for code in packed.codes.to_pylist()]
    cells = [F.interpolate(known.mask[None, None].float(), size=size, mode="area")[0, 0] > 0.5 for known in objects]
    known_codes = [mask_utils.encode(np.asfortranarray(cell.numpy().astype(np.uint8))) for cell in cells]
    # With the objects marked as crowds pycocotools divides the intersection by the area of the candidate alone.
    iou = mask_utils.iou(codes, known_codes, [0] * len(objects))
    return iou, mask_utils.iou(codes, known_codes, [1] * len(objects))
