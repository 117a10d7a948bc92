"""A report on prototypes in the dataset's own fields: attributes of reference labels, and suggestions as detections.

Both are recorded in a FiftyOne run, by which they are replaced the next time and can be taken back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import fiftyone as fo

from ..checks import require_kind, require_names
from ..dataset import (
    INSPECTING,
    LIST_FIELDS,
    add_labels_field,
    check_name,
    claim,
    clear_labels,
    delete_labels_fields,
    every_image,
    image_dataset,
    name_of,
    past_runs,
    remove_run,
    require_object_field,
    update_run,
    views_of_labels,
    whole_of,
    write_values,
)
from ..errors import DatasetError
from ..insight import PrototypeReport, Suggestion
from ..notebook import plain_page

SUGGESTIONS_FIELD = "suggestions"
ATTRIBUTES = ("loo_score", "loo_similarity", "hurts")


@dataclass(frozen=True)
class WrittenReport:
    """What write_fields wrote.

    Attributes:
        label_field: of the suggestions.
        num_suggestions: written there.
        paths: of the labels that have the attributes now, such as "ground_truth.detections".
        num_references: references whose labels have them.
        num_gone: references whose label is not in the dataset any more.
    """

    label_field: str
    num_suggestions: int
    paths: tuple[str, ...]
    num_references: int
    num_gone: int

    _repr_html_ = plain_page


def write_fields(report: PrototypeReport, dataset: Any, label_field: str = SUGGESTIONS_FIELD) -> WrittenReport:
    """Write a report to its dataset, in place of the one that was written before.

    The labels of references get the attributes `loo_score`, `loo_similarity` and `hurts`, see
    `refseg.insight.report.ReferenceReport`. Suggestions become detections with a mask, their class, their score as
    confidence, and the attributes `expected_change`, `predicted_iou` and `reason`; where a report has None, those written
    before stay. `delete_fields` takes all of it back.

    Args:
        report: from `refseg.inspect`.
        dataset: that holds the references and the images.
        label_field: of the suggestions; a new field, or one that was written here before.

    Raises:
        DatasetError: the field, or an attribute of these names, was not written here.
    """
    require_kind(PrototypeReport, "a report, such as refseg.inspect gives", report=report)
    require_names(label_field=label_field)
    whole = image_dataset(dataset)
    known = _record_of(whole, label_field)
    if known is None and whole.has_field(label_field):
        raise DatasetError(
            f"The field {label_field!r} of dataset {name_of(whole)!r} was not written by a report, and would be cleared: "
            "choose another field."
        )
    if known is None:
        check_name(whole, label_field)
    views = views_of_labels(every_image(whole), [item.id for item in report.references])
    paths = {name: _path(whole, name) for name in views if name != label_field}
    written_before = {path for record in _records(whole) for path in record["paths"]}
    for path in paths.values():
        taken = next((name for name in ATTRIBUTES if whole.get_field(f"{path}.{name}") is not None), None)
        if taken is not None and path not in written_before:
            raise DatasetError(
                f"The labels {path!r} of dataset {name_of(whole)!r} have an attribute {taken!r} of their own, which a report "
                "would replace: rename it first, for example with dataset.rename_sample_field."
            )
    # Labels that were references once would keep what is not true of them any more.
    _delete_attributes(whole, written_before)
    # A field that was cloned holds labels of the same ids.
    num_references = len(set().union(*(_write_attributes(report, views[name], path) for name, path in paths.items())))
    if report.suggestions is not None:
        _write_suggestions(whole, label_field, report.suggestions)
    _record(whole, label_field, sorted(paths.values()))
    num_gone = len(report.references) - num_references
    num_suggestions = len(report.suggestions or ())
    return WrittenReport(label_field, num_suggestions, tuple(paths.values()), num_references, num_gone)


def delete_fields(dataset: Any, label_field: str = SUGGESTIONS_FIELD) -> bool:
    """Take back what write_fields wrote; False where there is nothing of it.

    Args:
        dataset: a FiftyOne dataset.
        label_field: of the suggestions.
    """
    require_names(label_field=label_field)
    whole = image_dataset(dataset)
    record = _record_of(whole, label_field)
    if record is None:
        return False
    _delete_attributes(whole, record["paths"])
    if whole.has_field(label_field):
        delete_labels_fields(whole, [label_field])
    for run in past_runs(whole, [INSPECTING], label_field):
        remove_run(whole, run.key)
    return True


def suggestion_patches(dataset: Any, label_field: str = SUGGESTIONS_FIELD) -> Any:
    """A view of the suggestions of a dataset as patches, best first."""
    return every_image(dataset).to_patches(label_field).sort_by(f"{label_field}.expected_change", reverse=True)


def _write_attributes(report: PrototypeReport, view: Any, path: str) -> set[str]:
    """Ids of the references whose labels at a path have the attributes now."""
    held = set(view.values(f"{path}.id", unwind=True))
    items = [item for item in report.references if item.id in held]
    values: dict[str, dict[str, Any]] = {
        "loo_score": {item.id: item.score for item in items},
        "loo_similarity": {item.id: item.similarity for item in items},
        "hurts": {item.id: item.hurts for item in items},
    }
    for name, by_id in values.items():
        known = {label_id: value for label_id, value in by_id.items() if value is not None}
        if known:
            every_image(whole_of(view)).set_label_values(f"{path}.{name}", known, dynamic=True)
    return {item.id for item in items}


def _write_suggestions(dataset: Any, label_field: str, suggestions: tuple[Suggestion, ...]) -> None:
    if dataset.has_field(label_field):
        clear_labels(dataset, label_field)
    else:
        add_labels_field(dataset, label_field, fo.Detections())
    by_image: dict[str, list[fo.Detection]] = {}
    for item in suggestions:
        detection = fo.Detection(
            label=item.label,
            bounding_box=list(item.box),
            mask=item.mask,
            confidence=item.score,
            expected_change=item.expected_change,
            predicted_iou=item.predicted_iou,
            reason=item.reason,
        )
        by_image.setdefault(item.sample_id, []).append(detection)
    values = {sample_id: fo.Detections(detections=labels) for sample_id, labels in by_image.items()}
    write_values(dataset, label_field, values, dynamic=True)


def _delete_attributes(dataset: Any, paths: Any) -> None:
    for path in paths:
        names = [f"{path}.{name}" for name in ATTRIBUTES if dataset.get_field(f"{path}.{name}") is not None]
        if names:
            delete_labels_fields(dataset, names)


def _path(dataset: Any, name: str) -> str:
    inner = LIST_FIELDS.get(require_object_field(dataset, name).__name__)
    return f"{name}.{inner}" if inner else name


def _records(dataset: Any) -> list[dict[str, Any]]:
    return [dict(run.config) for run in past_runs(dataset, [INSPECTING])]


def _record_of(dataset: Any, label_field: str) -> dict[str, Any] | None:
    return next((record for record in _records(dataset) if record["label_field"] == label_field), None)


def _record(dataset: Any, label_field: str, paths: list[str]) -> None:
    own = {"method": INSPECTING, "label_field": label_field}
    key = claim(dataset, f"inspect_{label_field}", dataset.init_run(**own, paths=paths), replaces=own)
    for run in past_runs(dataset, [INSPECTING]):
        # The attributes are as this report says, whatever field its suggestions are in.
        if run.key != key:
            update_run(dataset, run.key, {"paths": []})
