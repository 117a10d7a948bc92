"""What prototypes are worth, and what in a dataset would make them better: the report of `refseg.inspect`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..checks import names_or_none, require_whole
from ..dataset import (
    every_image,
    find_index,
    image_view,
    images_of,
    load_prototypes,
    objects_of,
    relative_box,
    require_object_field,
    views_of_labels,
    whole_of,
)
from ..dataset import label_fields as fields_of_labels
from ..errors import DatasetError, IndexDamagedError, LabelError
from ..insight import PrototypeReport, Suggestion, assess, preset_of, settings_of
from ..matching import MatchSettings
from ..printing import left_out_line
from ..progress import Progress, Watcher, drain
from ..prototypes import Prototypes, require_prototypes
from .segmenting import matcher_for
from .settings import SegmentSettings
from .suggestions import iter_suggest

NUM_SUGGESTIONS = 12


def inspect(
    prototypes: Prototypes | str,
    dataset: Any = None,
    *,
    matching: MatchSettings | None = None,
    num_suggestions: int = NUM_SUGGESTIONS,
    label_fields: Sequence[str] | None = None,
    progress: bool | Watcher | None = None,
) -> PrototypeReport:
    """What prototypes are worth, and what would help: similarities, thresholds, F1, what hurts, what to label next.

    Scores are those of candidates in the images of references, each scored as if its image had never been shown. They need
    prototypes that were calibrated; without, whatever needs them is None, and the report says so. Six classes of thirty
    references take seconds, see `refseg.insight.removal`; suggestions a second for twenty thousand candidates of the index.

    Args:
        prototypes: or, with a dataset, the name under which it keeps them.
        dataset: a dataset or view of images, in whose index suggestions are looked for; None for no suggestions.
        matching: how candidates are compared; by default as the preset's.
        num_suggestions: at most so many; 0 for none.
        label_fields: fields whose objects are labelled already; by default all that hold objects and no predictions.
        progress: see `refseg.progress.drain`.

    Returns:
        A report to be printed (`str(report)`), tabulated (`report.as_rows()`) or looked at (`report.picture()`). Where the
        dataset has no index that can be read, its suggestions are None, and its notes say what to do.

    Raises:
        DatasetError: no images, unknown prototypes or fields, a name without a dataset, or a negative number.
    """
    work = iter_inspect(prototypes, dataset, matching=matching, num_suggestions=num_suggestions, label_fields=label_fields)
    return drain(work, progress, "inspecting")


def iter_inspect(
    prototypes: Prototypes | str,
    dataset: Any = None,
    *,
    matching: MatchSettings | None = None,
    num_suggestions: int = NUM_SUGGESTIONS,
    label_fields: Sequence[str] | None = None,
) -> Generator[Progress, None, PrototypeReport]:
    """The generator behind inspect."""
    require_whole(0, num_suggestions=num_suggestions)
    label_fields = names_or_none("label_fields", label_fields)
    if dataset is not None:
        dataset = image_view(dataset)
        for name in label_fields or ():
            require_object_field(dataset, name)
    if isinstance(prototypes, str):
        if dataset is None:
            raise DatasetError(f"Prototypes named {prototypes!r} are kept with a dataset: give the dataset too.")
        prototypes = load_prototypes(whole_of(dataset), prototypes)
    require_prototypes(prototypes=prototypes)
    yield Progress(0, 1, "reports")
    report = assess(prototypes, matching)
    yield Progress(1, 1, "reports")
    if dataset is None:
        return report
    report = _with_places(report, dataset)
    if not num_suggestions:
        return report
    suggestions, note = yield from _suggest(dataset, prototypes, matching, num_suggestions, label_fields)
    return replace(report, suggestions=suggestions, notes=(*report.notes, *note))


def _with_places(report: PrototypeReport, dataset: Any) -> PrototypeReport:
    """The same with path and box of each reference whose label is still in the dataset."""
    ids = {item.id for item in report.references}
    places = {}
    for name, view in views_of_labels(every_image(whole_of(dataset)), ids).items():
        for sample in view.select_fields(name).iter_samples(progress=False):
            for label in objects_of(sample[name]):
                if label.id in ids:
                    with suppress(LabelError):  # its place was changed since
                        places[label.id] = sample.filepath, relative_box(label)
    known = [
        replace(item, filepath=places[item.id][0], box=places[item.id][1]) if item.id in places else item
        for item in report.references
    ]
    return replace(report, references=tuple(known))


def _suggest(
    dataset: Any,
    prototypes: Prototypes,
    matching: MatchSettings | None,
    num_suggestions: int,
    label_fields: Sequence[str] | None,
) -> Generator[Progress, None, tuple[tuple[Suggestion, ...] | None, tuple[str, ...]]]:
    """Suggestions, or None and a note why there are none."""
    build = f"build the index to see what would help: refseg.build_index(dataset, {prototypes.model!r})"
    try:
        index = find_index(whole_of(dataset), prototypes.model, prototypes.fingerprint)
        images = images_of(dataset, index)
        if index is None or not images.held:
            return None, (f"no image is indexed for these prototypes; {build}",)
        settings = SegmentSettings(matching=settings_of(prototypes, matching))
        suggestions = yield from iter_suggest(
            dataset,
            index,
            images.held,
            prototypes,
            matcher_for(prototypes, preset_of(prototypes), settings),
            num_suggestions=num_suggestions,
            label_fields=fields_of_labels(dataset) if label_fields is None else label_fields,
        )
    except IndexDamagedError as error:
        return None, (f"nothing is suggested: {error}",)
    missing = len(images.missing)
    return suggestions, (left_out_line(missing, build),) if missing else ()
