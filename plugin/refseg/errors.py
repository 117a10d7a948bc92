"""Every error RefSeg raises on purpose. Each message says what is wrong, for which sample or class, and what to do next.

RefSegError
├── ModelError
│   ├── UnknownModelError        no preset of this name
│   ├── ModelUnavailableError    weights are neither here nor to be had
│   ├── UnsafeCheckpointError    a checkpoint holds more than tensors, or not the expected ones
│   └── ModelMemoryError         not even one image or prompt at a time fits into memory
├── ImageError                   an image cannot be read (recorded as a skip by long runs)
├── ShapeError                   tensors disagree on a size
├── BadReferenceError
│   ├── NoReferencesError        nothing was selected
│   └── ClassWithoutReferencesError  a class has no usable reference
├── PrototypeError
│   ├── PrototypeMismatchError   prototypes and model do not belong together
│   └── PrototypeFileError       not a prototypes file, or of a newer version
├── CandidateIndexError
│   ├── IndexNotFoundError       no index at this place
│   ├── IndexMismatchError       an index of another model, other settings or another dataset
│   ├── IndexDamagedError        an index that cannot be read
│   └── IndexWriteError          no space or no right to write; what was written before is kept
├── DatasetError                 a view, field, media type, label or other argument that does not fit
│   ├── LabelError               one label that cannot be used (recorded as a skip)
│   │   └── MaskError            its mask alone cannot
│   └── CocoError                a COCO file that cannot be used
├── WorkersError                 Ray is not here, or its workers cannot begin or go on
└── BenchmarkError               a published benchmark cannot start; the message names all that is missing
"""

from __future__ import annotations

from collections.abc import Sequence


class RefSegError(Exception):
    """The root of the tree; the command line prints it as one line."""


class ModelError(RefSegError):
    """A model could not be had."""


class UnknownModelError(ModelError):
    """No preset has this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"There is no model preset {name!r}: choose one of {', '.join(known)}.")
        self.name = name
        self.known = tuple(known)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.name, self.known)


class ModelUnavailableError(ModelError):
    """Weights are not on this machine and could not be downloaded."""


class UnsafeCheckpointError(ModelError):
    """A checkpoint holds something other than the tensors the model expects."""


class ModelMemoryError(ModelError):
    """Memory is not enough for the models to look at one image or prompt at a time."""

    def __init__(self, what: str, model: str, device: str) -> None:
        super().__init__(
            f"The memory of {device} does not suffice for the model {model!r}, not even with one at a time of its {what}: free "
            "some, choose a smaller preset or another device, or leave tiles off."
        )
        self.what = what
        self.model = model
        self.device = device

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.what, self.model, self.device)


class ImageError(RefSegError):
    """An image is missing, truncated, or not an image."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path, self.reason)


class ShapeError(RefSegError):
    """Tensors disagree on a size."""


class BadReferenceError(RefSegError):
    """References cannot be used."""


class NoReferencesError(BadReferenceError):
    """A selection holds no reference at all."""


class ClassWithoutReferencesError(BadReferenceError):
    """None of a class's references is usable."""

    def __init__(self, label: str, reasons: Sequence[str]) -> None:
        detail = f": {'; '.join(reasons)}" if reasons else ""
        super().__init__(
            f"The class {label!r} has no usable reference{detail}. Add a larger or complete object of it, or leave it out."
        )
        self.label = label
        self.reasons = tuple(reasons)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.label, self.reasons)


class PrototypeError(RefSegError):
    """Prototypes cannot be used."""


class PrototypeMismatchError(PrototypeError):
    """Prototypes were built by another model than the one that is to use them."""


class PrototypeFileError(PrototypeError):
    """A file does not hold prototypes this version can read."""


class DatasetError(RefSegError):
    """A dataset, view, field, media type or other argument does not fit the request."""


class LabelError(DatasetError):
    """One label has no place, no class or no readable mask."""

    def __init__(self, label_id: str, label: str | None, reason: str) -> None:
        super().__init__(f"The label {label_id} ({label!r}) cannot be used: {reason}.")
        self.label_id = label_id
        self.label = label
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.label_id, self.label, self.reason)


class MaskError(LabelError):
    """Of one label the mask alone cannot be used."""


class CocoError(DatasetError):
    """A COCO file is missing, malformed, or does not fit the images."""


class CandidateIndexError(RefSegError):
    """A candidate index cannot be used."""


class IndexNotFoundError(CandidateIndexError):
    """There is no candidate index at this place."""


class IndexMismatchError(CandidateIndexError):
    """An index holds candidates of another model, other settings or another dataset."""


class IndexDamagedError(CandidateIndexError):
    """An index cannot be read."""


class IndexWriteError(CandidateIndexError):
    """Candidates could not be written, for want of space or rights; what was written before is kept."""


class IndexSpaceError(IndexWriteError):
    """There is no room for the candidates that are to come; nothing was begun."""


class WorkersError(RefSegError):
    """Work that was to be shared out to other processes or machines cannot be."""


class BenchmarkError(RefSegError):
    """A published benchmark cannot start, or its results cannot be read."""


class PluginError(RefSegError):
    """The App's part cannot be put into FiftyOne's plugins folder, or taken away; the message says why."""
