from __future__ import annotations

import pickle

import pytest

from refseg import errors
from refseg.errors import (
    BadReferenceError,
    BenchmarkError,
    CandidateIndexError,
    ClassWithoutReferencesError,
    CocoError,
    DatasetError,
    ImageError,
    IndexDamagedError,
    IndexMismatchError,
    IndexNotFoundError,
    IndexSpaceError,
    IndexWriteError,
    LabelError,
    MaskError,
    ModelError,
    ModelMemoryError,
    ModelUnavailableError,
    NoReferencesError,
    PluginError,
    PrototypeError,
    PrototypeFileError,
    PrototypeMismatchError,
    RefSegError,
    ShapeError,
    UnknownModelError,
    UnsafeCheckpointError,
    WorkersError,
)

ONE_OF_EACH = [
    RefSegError("words"),
    ModelError("words"),
    UnknownModelError("huge", ["demo", "tiny"]),
    ModelUnavailableError("words"),
    UnsafeCheckpointError("words"),
    ModelMemoryError("prompts", "large", "cuda:0"),
    ImageError("photo.png", "the file does not exist"),
    ShapeError("words"),
    BadReferenceError("words"),
    NoReferencesError("words"),
    ClassWithoutReferencesError("gear", ["label-1: its mask is empty", "label-2: too thin"]),
    PrototypeError("words"),
    PrototypeMismatchError("words"),
    PrototypeFileError("words"),
    CandidateIndexError("words"),
    IndexNotFoundError("words"),
    IndexMismatchError("words"),
    IndexDamagedError("words"),
    IndexSpaceError("words"),
    IndexWriteError("words"),
    DatasetError("words"),
    LabelError("label-1", None, "it has no class"),
    MaskError("label-1", "star", "its mask cannot be read"),
    CocoError("words"),
    BenchmarkError("words"),
    WorkersError("words"),
    PluginError("words"),
]


def test_list_is_complete() -> None:
    defined = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert {type(error) for error in ONE_OF_EACH} == defined


@pytest.mark.parametrize(
    ("kind", "parents"),
    [
        (UnknownModelError, (ModelError, RefSegError)),
        (ModelUnavailableError, (ModelError, RefSegError)),
        (UnsafeCheckpointError, (ModelError, RefSegError)),
        (ImageError, (RefSegError,)),
        (ShapeError, (RefSegError,)),
        (NoReferencesError, (BadReferenceError, RefSegError)),
        (ClassWithoutReferencesError, (BadReferenceError, RefSegError)),
        (PrototypeMismatchError, (PrototypeError, RefSegError)),
        (PrototypeFileError, (PrototypeError, RefSegError)),
        (IndexNotFoundError, (CandidateIndexError, RefSegError)),
        (IndexMismatchError, (CandidateIndexError, RefSegError)),
        (IndexDamagedError, (CandidateIndexError, RefSegError)),
        (IndexWriteError, (CandidateIndexError, RefSegError)),
        (IndexSpaceError, (IndexWriteError, CandidateIndexError, RefSegError)),
        (PluginError, (RefSegError,)),
        (CocoError, (DatasetError, RefSegError)),
    ],
)
def test_tree_is_as_drawn(kind: type[RefSegError], parents: tuple[type[RefSegError], ...]) -> None:
    assert kind.__mro__[1 : len(parents) + 1] == parents


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: type(error).__name__)
def test_survives_pickling(error: RefSegError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: type(error).__name__)
def test_is_one_line(error: RefSegError) -> None:
    assert "\n" not in str(error)


def test_unknown_model_names_the_choices() -> None:
    error = UnknownModelError("huge", ["demo", "tiny"])
    assert str(error) == "There is no model preset 'huge': choose one of demo, tiny."
    assert (error.name, error.known) == ("huge", ("demo", "tiny"))


def test_image_error_names_the_file() -> None:
    error = ImageError("photo.png", "the file does not exist")
    assert str(error) == "photo.png: the file does not exist"
    assert (error.path, error.reason) == ("photo.png", "the file does not exist")


def test_class_without_references_names_class_and_reasons() -> None:
    error = ClassWithoutReferencesError("gear", ["label-1: its mask is empty"])
    assert str(error) == (
        "The class 'gear' has no usable reference: label-1: its mask is empty. "
        "Add a larger or complete object of it, or leave it out."
    )
    assert (error.label, error.reasons) == ("gear", ("label-1: its mask is empty",))


def test_class_without_references_without_reasons() -> None:
    assert str(ClassWithoutReferencesError("gear", ())).startswith("The class 'gear' has no usable reference. ")
