"""What a run gained, lost and relabelled as labels of a field, to be looked at in the App: where it is, in three colours.

A run only notes the objects, some 80 bytes each. The field is written when somebody asks for it, and from then on holds what
the newest run changed: each run that follows replaces its labels, which takes tenths of a second for a thousand changed images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
from bson import ObjectId
from fiftyone import ViewField as F

from ..checks import require_names
from ..dataset import (
    CHANGING,
    RUN,
    PastRun,
    add_labels_field,
    check_name,
    claim,
    image_dataset,
    images_with_labels,
    name_of,
    newest_of,
    newest_run,
    whole_config,
    write_detections,
    write_values,
)
from ..errors import DatasetError
from ..notebook import bars, facts, page
from ..printing import counted
from .changes import GAINED, LOST, RELABELLED, ChangedObject
from .records import objects_from_text

CHANGES_FIELD = "changes"
KINDS = (GAINED, LOST, RELABELLED)
VIEW_DESCRIPTION = "Written by RefSeg, and replaced by the next run"


@dataclass(frozen=True)
class ShownChanges:
    """What show_changes wrote.

    Attributes:
        label_field: of the changed objects.
        run_key: of the run that changed them.
        counts: objects of each kind: "gained", "lost" and "relabelled".
        num_samples: images that hold any.
        saved_views: names of the dataset's saved views of each kind, in the order of counts; () for frames of videos.
    """

    label_field: str
    run_key: str
    counts: dict[str, int]
    num_samples: int
    saved_views: tuple[str, ...]

    def _repr_html_(self) -> str:
        """Objects of each kind as bars."""
        about = {"field": self.label_field, "run": self.run_key, "saved views": ", ".join(self.saved_views)}
        return page(f"Changes in {counted(self.num_samples, 'image')}", bars(self.counts), facts(about))

    def __str__(self) -> str:
        told = ", ".join(f"{number} {kind}" for kind, number in self.counts.items())
        return f"{told}, in {counted(self.num_samples, 'image')}, in the field {self.label_field!r} (run {self.run_key!r})"


def show_changes(dataset: Any, label_field: str = "predictions", changes_field: str = CHANGES_FIELD) -> ShownChanges:
    """Write what the newest run of a field changed as labels of a field of its own, in place of those of before.

    Each is a detection with the class it has now, or had, the attribute `change` ("gained", "lost" or "relabelled"), `before`
    (what a relabelled one was) and `run`, and a box without a mask: that of a lost object is gone. Saved views show the
    images with each kind alone. From now on every run that writes to `label_field` brings the labels up to date; until the
    field is deleted. It is never taken for references, ground truth or predictions.

    Args:
        dataset: a FiftyOne dataset, or a view of one, which stands for the whole.
        label_field: of the predictions.
        changes_field: a new field, or one that was written here before.

    Raises:
        DatasetError: no run has written to label_field, or the field was not written here.

    Example:
        ::

            refseg.update(dataset)
            print(refseg.show_changes(dataset))
            lost = dataset.load_saved_view("Lost since the run before")
    """
    require_names(label_field=label_field, changes_field=changes_field)
    whole = image_dataset(dataset)
    run = newest_run(whole, label_field)
    if run is None:
        raise DatasetError(
            f"No run of RefSeg has written to the field {label_field!r} of dataset {name_of(whole)!r}, so nothing has changed: "
            "run refseg.segment first."
        )
    if not whole.has_field(changes_field):
        check_name(whole, changes_field)
    elif newest_of(whole, CHANGING, label_field=changes_field) is None:
        raise DatasetError(
            f"The field {changes_field!r} of dataset {name_of(whole)!r} was not written by show_changes, and would be cleared: "
            "choose another field."
        )
    own = {"method": CHANGING, "label_field": changes_field}
    config = whole.init_run(**own, predictions=label_field, run=run.key)
    claim(whole, f"changes_{changes_field}", config, replaces=own)
    objects = objects_from_text(str(whole_config(whole, run.key).get("changed_objects") or "{}"))
    _write(whole, changes_field, run.key, objects)
    counts = Counter(one.change for one in objects)
    return ShownChanges(
        changes_field,
        run.key,
        {kind: counts[kind] for kind in KINDS},
        len({one.sample_id for one in objects}),
        _save_views(whole, changes_field),
    )


def shown_changes(dataset: Any, label_field: str) -> PastRun | None:
    """The record of the field that shows what runs of a field of predictions change; None where nobody has asked for one."""
    return newest_of(dataset, CHANGING, predictions=label_field)


def renew_changes(dataset: Any, label_field: str, run_key: str, objects: Iterable[ChangedObject]) -> None:
    """Let a field that shows what runs change show what this one has; nothing where nobody has asked for one.

    Args:
        dataset: as from whole_of.
        label_field: of the predictions.
        run_key: of the run.
        objects: what it has changed.
    """
    record = shown_changes(dataset, label_field)
    if record is not None and dataset.has_field(record.config["label_field"]):
        own = {"method": CHANGING, "label_field": record.config["label_field"]}
        config = dataset.init_run(**own, predictions=label_field, run=run_key)
        _write(dataset, record.config["label_field"], run_key, objects)
        claim(dataset, f"changes_{record.config['label_field']}", config, replaces=own)


def kind_of_change(kind: str) -> Any:
    """What the labels of one kind are known by, for `filter_labels`."""
    return F("change") == kind


def _write(dataset: Any, field: str, run_key: str, objects: Iterable[ChangedObject]) -> None:
    labels: dict[str, list[dict[str, Any]]] = {}
    for one in objects:
        if one.box is not None:
            labels.setdefault(one.sample_id, []).append(_document(one, run_key))
    if not dataset.has_field(field):
        example = fo.Detection(label="", bounding_box=[0.0] * 4, change="", before="", **{RUN: ""})
        add_labels_field(dataset, field, fo.Detections(detections=[example]))
    # Not the whole field: whoever keeps what it has read would have to read every image again.
    write_values(dataset, field, dict.fromkeys(set(images_with_labels(dataset, field)) - labels.keys()))
    write_detections(dataset, field, {name: {"_cls": "Detections", "detections": own} for name, own in labels.items()})


def _document(one: ChangedObject, run_key: str) -> dict[str, Any]:
    values = {"label": one.label, "bounding_box": list(one.box or ()), "change": one.change, "before": one.before, RUN: run_key}
    return {"_id": ObjectId(), "_cls": "Detection", "attributes": {}, "tags": [], **values}


def _save_views(dataset: Any, field: str) -> tuple[str, ...]:
    """A saved view of each kind, where its name is free or the view is ours; their names."""
    if not isinstance(dataset, fo.Dataset):
        return ()
    names = []
    for kind in KINDS:
        name = f"{kind.capitalize()} since the run before" + (f" ({field})" if field != CHANGES_FIELD else "")
        is_there = dataset.has_saved_view(name)
        if is_there and dataset.get_saved_view_info(name)["description"] != VIEW_DESCRIPTION:
            continue
        if not is_there:
            dataset.save_view(name, dataset.filter_labels(field, kind_of_change(kind)), description=VIEW_DESCRIPTION)
        names.append(name)
    return tuple(names)
