"""Prototypes: what classes look like, by the vectors of their references, and all that helps to tell them from the rest.

A value that is built by `building`, added to, taken from, saved and loaded. With R references of C features it takes
R × C × 4 bytes, with what surrounds each reference R × C × 20.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from ..candidates import LOOK_VERSION
from ..checks import names_of, path_of, require_flags, require_kind
from ..errors import ClassWithoutReferencesError, PrototypeError, PrototypeMismatchError, ShapeError
from ..images import PLAIN, PixelSettings
from ..printing import counted, listing, object_name
from .checking import listed_names, require_class_names, require_finite
from .cohort import Cohort
from .files import read_file, write_file
from .means import class_prototypes
from .negatives import Negatives, joined_looks
from .pages import prototypes_page
from .surroundings import Surroundings, joined_surroundings
from .vectors import ReferenceVector

FILE_VERSION = 4
"""1 had no digests, 2 no negatives, 3 neither images, background nor surroundings."""
VERSION_WITH_PIXELS = 5
"""Of a file that says how pixels were read alone, so that earlier versions, which do not know, can read every other."""
VERSION_WITH_LOOKS = 6
"""Of a file with second looks, or with parts of references among the surroundings, likewise."""


@dataclass(frozen=True, eq=False)
class Prototypes:
    """Classes as the mean of their references, and what is not to be taken for them.

    Attributes:
        classes: K names, in the order of the rows of `matrix`.
        vectors: (R, C) float32 instance vectors, not normalised.
        labels: (R,) int64, the class row of each vector.
        reference_ids: id of each reference.
        model: name of the preset that computed the vectors.
        fingerprint: of its encoder; only candidates of the same encoder can be compared.
        skipped: references and negatives that could not be used, each with the reason.
        digests: of what each vector was computed from, see `refseg.prototypes.vectors.reference_digest`; "" where unknown, ()
            where all are.
        negatives: objects that are none of the classes, or not the one they look like; None without any.
        images: key of the image of each reference, see `refseg.prototypes.surroundings.image_key`; () where unknown.
        background: (R, B, C) float16, what surrounds each reference in its crop, see
            `refseg.prototypes.vectors.background_vectors`; None where unknown.
        surroundings: candidates of the images of references, and of images known to be empty; None before
            `refseg.calibrate`.
        pixels: how images of more than 8 bits, or more than three bands, were read; plain where there were none.
        looks: (R, D) float16 second looks, see `refseg.candidates.second_look`, zeros for an object too thin for one; None
            where nobody has looked again.
        cohort: a sample of the candidates of the dataset; None before `refseg.calibrate`.
        turned: whether references and negatives were looked at turned and mirrored too.
        image_names: name of the file that holds each reference, without its folder; () where unknown.
    """

    classes: tuple[str, ...]
    vectors: Tensor
    labels: Tensor
    reference_ids: tuple[str, ...]
    model: str
    fingerprint: str
    skipped: tuple[tuple[str, str], ...] = ()
    digests: tuple[str, ...] = ()
    negatives: Negatives | None = None
    images: tuple[str, ...] = ()
    background: Tensor | None = None
    surroundings: Surroundings | None = None
    pixels: PixelSettings = PLAIN
    looks: Tensor | None = None
    cohort: Cohort | None = None
    turned: bool = False
    image_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        parts = [
            f"{counted(len(self.classes), 'class')}: {listing([f'{name} {number}' for name, number in self.shots.items()])}",
            f"model {self.model!r}, width {self.vectors.shape[-1]}",
        ]
        if self.negatives is not None:
            parts.append(counted(len(self.negatives), "negative"))
        if self.surroundings is not None:
            parts.append("calibrated")
        if self.skipped:
            parts.append(f"{len(self.skipped)} skipped")
        return f"Prototypes({'; '.join(parts)})"

    def _repr_html_(self) -> str:
        return prototypes_page(self)

    def __post_init__(self) -> None:
        self._check_kinds()
        if not len(self.vectors) == len(self.labels) == len(self.reference_ids):
            raise ShapeError(
                f"Prototypes need one vector, label and id a reference, but there are {len(self.vectors)}, "
                f"{len(self.labels)} and {len(self.reference_ids)}."
            )
        for what, values in (
            ("digest", self.digests or None),
            ("image", self.images or None),
            ("image name", self.image_names or None),
            ("background", self.background),
            ("second look", self.looks),
        ):
            if values is not None and len(values) != len(self.reference_ids):
                raise ShapeError(
                    f"Prototypes need one {what} a reference or none at all, but there are {len(values)} of "
                    f"{len(self.reference_ids)} references."
                )
        for name, tensor in self._other_vectors().items():
            if tensor.shape[-1:] != self.vectors.shape[1:]:
                raise ShapeError(
                    f"{name} of shape {tuple(tensor.shape)} do not fit references of shape {tuple(self.vectors.shape)}: build "
                    "both with one model."
                )
        if len({tensor.shape[-1] for tensor in self._every_look()}) > 1:
            raise ShapeError("Second looks of references and of all else must be equally wide: build both with one model.")
        if bool(((self.labels < 0) | (self.labels >= len(self.classes))).any()):
            raise ShapeError(
                f"Prototypes of {len(self.classes)} classes need labels from 0 to {len(self.classes) - 1}, but there are "
                f"{sorted(set(self.labels.tolist()))}."
            )
        for name, number in self.shots.items():
            if not number:
                raise ClassWithoutReferencesError(name, ())
        own = {"Vectors": self.vectors, "Backgrounds": self.background, "Second looks": self.looks}
        require_finite({f"{what} of references": tensor for what, tensor in own.items()}, self.name_of)

    def _check_kinds(self) -> None:
        require_kind(tuple, "a tuple of names", error=PrototypeError, classes=self.classes, reference_ids=self.reference_ids)
        require_class_names(names_of("classes", self.classes))
        names_of("reference_ids", self.reference_ids, like="ids")
        require_kind(Tensor, "a tensor", error=PrototypeError, vectors=self.vectors, labels=self.labels)
        if self.vectors.ndim != 2 or self.labels.ndim != 1 or self.labels.dtype != torch.int64:
            raise ShapeError(
                f"vectors must be of shape (R, C) and labels int64 of shape (R,), not {tuple(self.vectors.shape)} and "
                f"{self.labels.dtype} of {tuple(self.labels.shape)}."
            )
        require_kind(str, "a text", error=PrototypeError, model=self.model, fingerprint=self.fingerprint)
        require_kind(tuple, "a tuple", error=PrototypeError, skipped=self.skipped, digests=self.digests, images=self.images)
        require_kind(tuple, "a tuple", error=PrototypeError, image_names=self.image_names)
        others: dict[str, tuple[type, Any]] = {
            "background": (Tensor, self.background),
            "negatives": (Negatives, self.negatives),
            "surroundings": (Surroundings, self.surroundings),
            "looks": (Tensor, self.looks),
            "cohort": (Cohort, self.cohort),
        }
        for name, (kind, value) in others.items():
            require_kind((kind, NoneType), f"{kind.__name__} or None", error=PrototypeError, **{name: value})
        require_kind(PixelSettings, "PixelSettings", error=PrototypeError, pixels=self.pixels)
        require_flags(turned=self.turned)

    @property
    def matrix(self) -> Tensor:
        """(K, C) float32, unit length: the mean of each class's instance vectors (method.md B3)."""
        return class_prototypes(self.vectors, self.labels, len(self.classes))

    @property
    def shots(self) -> dict[str, int]:
        """Number of references of each class."""
        counts = torch.bincount(self.labels, minlength=len(self.classes))
        return {name: int(count) for name, count in zip(self.classes, counts, strict=True)}

    def name_of(self, row: int) -> str:
        """What people read of one reference: its class, the file of its image where that is known, and its id."""
        path = self.image_names[row] if self.image_names else ""
        return object_name(self.classes[int(self.labels[row])], path, self.reference_ids[row])

    @property
    def known_vectors(self) -> dict[tuple[str, str], ReferenceVector]:
        """Vectors of references and negatives by id and digest, without those of unknown digest."""
        backgrounds = [None] * len(self.vectors) if self.background is None else self.background.float()
        vectors = map(ReferenceVector, self.vectors, backgrounds, _each(self.looks, len(self.vectors)))
        known = dict(zip(zip(self.reference_ids, self._digest_of_each, strict=True), vectors, strict=True))
        if self.negatives is not None:
            keys = zip(self.negatives.ids, self.negatives.digests, strict=True)
            looks = _each(self.negatives.looks, len(self.negatives))
            known.update(zip(keys, map(ReferenceVector, self.negatives.vectors, repeat(None), looks), strict=False))
        return {key: vector for key, vector in known.items() if key[1]}

    def _other_vectors(self) -> dict[str, Tensor]:
        """What must be as wide as the vectors of the references."""
        tensors: dict[str, Tensor | None] = {
            "Negatives": None if self.negatives is None else self.negatives.vectors,
            "Backgrounds": self.background,
            "Surroundings": None if self.surroundings is None else self.surroundings.features,
        }
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    def _every_look(self) -> list[Tensor]:
        """Second looks of whatever has some."""
        owners = (self.negatives, self.surroundings, self.cohort)
        looks = [self.looks, *(None if owner is None else owner.looks for owner in owners)]
        return [tensor for tensor in looks if tensor is not None]

    @property
    def _digest_of_each(self) -> tuple[str, ...]:
        return self.digests or ("",) * len(self.reference_ids)

    def num_shared(self, other: Prototypes) -> int:
        """Number of objects whose vector is the same in other: by the same encoder, from the same object."""
        require_prototypes(other=other)
        if other.fingerprint != self.fingerprint:
            return 0
        return len(self.known_vectors.keys() & other.known_vectors.keys())

    def add(self, other: Prototypes) -> Prototypes:
        """These and other's references and negatives together; an object in both is what it is in other.

        Raises:
            PrototypeMismatchError: the two come from different encoders.
        """
        require_prototypes(other=other)
        if other.fingerprint != self.fingerprint:
            raise PrototypeMismatchError(
                f"Prototypes of the model {self.model!r} and of {other.model!r} cannot be joined: build both with one model."
            )
        if not self.pixels.fits(other.pixels):
            raise PrototypeMismatchError(
                f"Prototypes built with {self.pixels} and with {other.pixels} cannot be joined: build both with the same."
            )
        newer = other.reference_ids + (other.negatives.ids if other.negatives is not None else ())
        kept = self.remove(newer, keep_classes=False)
        classes = list(self.classes) + [name for name in other.classes if name not in self.classes]
        rows = [classes.index(owner.classes[row]) for owner in (kept, other) for row in owner.labels.tolist()]
        used = sorted(set(rows))
        images, names = kept.images + other.images, kept.image_names + other.image_names
        return Prototypes(
            tuple(classes[row] for row in used),
            torch.cat([kept.vectors, other.vectors]),
            torch.tensor([used.index(row) for row in rows], dtype=torch.int64),
            kept.reference_ids + other.reference_ids,
            self.model,
            self.fingerprint,
            self.skipped + other.skipped,
            kept._digest_of_each + other._digest_of_each if kept.digests or other.digests else (),
            kept.negatives.add(other.negatives) if kept.negatives and other.negatives else kept.negatives or other.negatives,
            images if len(images) == len(rows) else (),
            None if kept.background is None or other.background is None else torch.cat([kept.background, other.background]),
            joined_surroundings(kept.surroundings, other.surroundings),
            PixelSettings(self.pixels.pixel_range or other.pixels.pixel_range, self.pixels.channels or other.pixels.channels),
            joined_looks((kept.looks, len(kept.labels)), (other.looks, len(other.labels))),
            other.cohort or self.cohort,
            self.turned or other.turned,
            names if len(names) == len(rows) else (),
        )

    def remove(self, reference_ids: Iterable[str], *, keep_classes: bool = True) -> Prototypes:
        """These without some references or negatives; ids that are not here are ignored.

        Args:
            reference_ids: what to remove, negatives too.
            keep_classes: raise where a class would be left without reference, instead of dropping the class.

        Raises:
            ClassWithoutReferencesError: keep_classes is set and a class would be left empty.
        """
        require_flags(keep_classes=keep_classes)
        gone = set(names_of("reference_ids", reference_ids, like="ids"))
        keep = [row for row, name in enumerate(self.reference_ids) if name not in gone]
        labels = self.labels[keep]
        if keep_classes:
            classes = self.classes
        else:
            used = sorted(set(labels.tolist()))
            classes = tuple(self.classes[row] for row in used)
            labels = torch.tensor([used.index(row) for row in labels.tolist()], dtype=torch.int64)
        return Prototypes(
            classes,
            self.vectors[keep],
            labels,
            tuple(self.reference_ids[row] for row in keep),
            self.model,
            self.fingerprint,
            self.skipped,
            tuple(self.digests[row] for row in keep) if self.digests else (),
            self.negatives.remove(gone) if self.negatives is not None else None,
            tuple(self.images[row] for row in keep) if self.images else (),
            None if self.background is None else self.background[keep],
            self.surroundings.remove(gone) if self.surroundings is not None else None,
            self.pixels,
            None if self.looks is None else self.looks[keep],
            self.cohort,
            self.turned,
            tuple(self.image_names[row] for row in keep) if self.image_names else (),
        )

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, complete or not at all, in place of an earlier one; see `refseg.prototypes.files`.

        Raises:
            PrototypeFileError: there is a file of this name that holds something else, or none can be written there.
        """
        write_file(Path(path_of("path", path)).expanduser(), *self._parts())

    def _parts(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a file holds: JSON and tensors; see _from_parts."""
        about: dict[str, Any] = {
            "version": FILE_VERSION,
            "classes": self.classes,
            "reference_ids": self.reference_ids,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "skipped": self.skipped,
            "digests": self.digests,
            "images": self.images,
            "negatives": None,
            "surroundings": None,
        }
        if not self.pixels.is_plain:
            about |= {"version": VERSION_WITH_PIXELS, "pixels": self.pixels.as_lists()}
        tensors = {"vectors": self.vectors, "labels": self.labels}
        if self.background is not None:
            tensors["background"] = self.background
        if self.negatives is not None:
            about["negatives"], own = self.negatives.parts()
            tensors |= own
        if self.surroundings is not None:
            about["surroundings"], own = self.surroundings.file_parts()
            tensors |= own
        if self._every_look() or (self.surroundings is not None and self.surroundings.parts):
            about |= {"version": VERSION_WITH_LOOKS, "look_version": LOOK_VERSION}
        if self.turned:
            about["turned"] = True
        if self.image_names:
            about["image_names"] = self.image_names
        if self.looks is not None:
            tensors["looks"] = self.looks
        if self.cohort is not None:
            about["cohort"], own = self.cohort.parts()
            tensors |= own
        return about, tensors

    @classmethod
    def load(cls, path: str | Path) -> Prototypes:
        """Read a file written by save.

        Raises:
            PrototypeFileError: the file is missing, holds something else, or was written by a newer version.
        """
        return read_file(Path(path_of("path", path)).expanduser(), VERSION_WITH_LOOKS, _from_parts)


def require_prototypes(**given: object) -> None:
    """Refuse arguments that are no prototypes.

    Raises:
        PrototypeError: one is something else.
    """
    require_kind(Prototypes, "prototypes, such as refseg.build_prototypes makes", error=PrototypeError, **given)


def _each(looks: Tensor | None, number: int) -> list[Tensor | None]:
    """The second look of each of so many objects; None where it is unknown."""
    return [None] * number if looks is None else [own if bool(own.any()) else None for own in looks.float()]


def _from_parts(about: dict[str, Any], tensors: dict[str, Tensor]) -> Prototypes:
    """Parts that earlier versions did not write are as unknown, and so are second looks of another version."""
    if about.get("look_version", LOOK_VERSION) != LOOK_VERSION:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("looks")}
    negatives, around, cohort = about.get("negatives"), about.get("surroundings"), about.get("cohort")
    return Prototypes(
        listed_names("classes", about["classes"]),
        tensors["vectors"],
        tensors["labels"],
        listed_names("reference_ids", about["reference_ids"]),
        about["model"],
        about["fingerprint"],
        tuple((str(name), str(reason)) for name, reason in about["skipped"]),
        listed_names("digests", about.get("digests", [])),
        None if negatives is None else Negatives.from_parts(negatives, tensors),
        listed_names("images", about.get("images", [])),
        tensors.get("background"),
        None if around is None else Surroundings.from_parts(around, tensors),
        PixelSettings.from_lists(about.get("pixels")),
        tensors.get("looks"),
        None if cohort is None or "cohort_looks" not in tensors else Cohort.from_parts(cohort, tensors),
        bool(about.get("turned", False)),
        listed_names("image_names", about.get("image_names", [])),
    )
