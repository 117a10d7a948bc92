"""The mask files of predictions that a run replaces: they go once the new predictions are written, where no label needs them.

Removed is only what runs of segment on this dataset have written, `<folder of masks>/<sample id>/<label id>.png`. A file stays
where any label of its image points to it, such as one in a copied field, and where those of another dataset do, such
as a clone's. A process that is killed leaves files without labels, never labels without files; from an hour later on the next
run on the image removes them.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from bson import ObjectId
from fiftyone.core.odm import get_db_conn
from pymongo.errors import PyMongoError

from ..dataset import RUN, SEGMENTING, dataset_folder, past_runs, settle, whole_of

logger = logging.getLogger(__name__)

SECONDS_AN_ORPHAN = 3600
"""A file to which no label points is left over when it is so old: a run writes its labels seconds after their files."""
SEARCH_MILLISECONDS = 10_000
"""Other datasets are searched for labels that point to the files; where that takes longer, the files stay."""
OWN_NAME = re.compile(r"[0-9a-f]{24}")
"""Ids of samples and of labels."""


class MaskFiles:
    """Those of a field of predictions.

    Args:
        view: whose samples are written to.
        label_field: of the predictions.
        folder: where the run that is at work writes masks; None for a folder of its own, or none.
    """

    def __init__(self, view: Any, label_field: str, folder: Path | None) -> None:
        self._root = view._root_dataset
        # Labels of frames are kept twice, with their videos too.
        self._can_tell = whole_of(view) is self._root
        self._label_field = label_field
        self._own_folder = dataset_folder(view) / "masks"
        self._folders: set[Path] = set() if folder is None else {folder}

    def of(self, sample_ids: Collection[str]) -> dict[str, set[Path]]:
        """The files of the predictions that these samples hold now, by sample id; to be asked for before they are replaced."""
        if not self._can_tell or not self._every_folder:
            return {}
        path = f"{self._label_field}.detections"
        names = {f"{path}.{name}": True for name in ("_id", "mask_path", RUN)}
        found: dict[str, set[Path]] = {}
        for document in self._documents(sample_ids, names):
            labels = (document.get(self._label_field) or {}).get("detections") or ()
            own = {
                Path(label["mask_path"])
                for label in labels
                if label.get(RUN) and label.get("mask_path") and Path(label["mask_path"]).stem == str(label["_id"])
            }
            sample_id = str(document["_id"])
            found[sample_id] = {file for file in own if self._is_ours(file, sample_id)}
        return found

    def remove(self, before: Mapping[str, set[Path]]) -> None:
        """Remove what no label needs any more of the files that were there before predictions were replaced.

        Args:
            before: from `of`.
        """
        try:
            unused = list(self._unused(before))
            if unused:
                # Else a crash of MongoDB could bring back labels whose files are gone.
                settle(self._root)
        except PyMongoError as error:
            logger.info("Mask files that are not needed any more stay: %s", error)
            return
        for file in unused:
            with suppress(OSError):
                file.unlink(missing_ok=True)
            if self._own_folder in file.parents:
                # Nobody else writes there: it is a folder of an earlier run.
                with suppress(OSError):
                    file.parent.rmdir()
                    file.parent.parent.rmdir()

    def _unused(self, before: Mapping[str, set[Path]]) -> Iterator[Path]:
        gone = {sample_id: files | self._left_over(sample_id, files) for sample_id, files in before.items()}
        gone = {sample_id: files for sample_id, files in gone.items() if files}
        if not gone:
            return
        fields = _fields_of_masks(self._document)
        for document in self._documents(list(gone), dict.fromkeys(fields, True)):
            files = gone[str(document["_id"])] - set(map(Path, _mask_paths(document, fields)))
            yield from (file for file in files if file.parent not in self._used_elsewhere)

    def _left_over(self, sample_id: str, files: set[Path]) -> set[Path]:
        """Old files of labels of a sample, where those lie that are replaced now, or are written to."""
        found = set()
        for folder in {file.parent for file in files} | {folder / sample_id for folder in self._folders}:
            for file in folder.glob("*.png"):
                with suppress(OSError):
                    is_old = time.time() - file.stat().st_mtime >= SECONDS_AN_ORPHAN
                    if is_old and OWN_NAME.fullmatch(file.stem):
                        found.add(file)
        return found

    def _is_ours(self, file: Path, sample_id: str) -> bool:
        return file.parent.name == sample_id and file.parent.parent in self._every_folder and file.suffix == ".png"

    @cached_property
    def _every_folder(self) -> set[Path]:
        """The folders of masks that runs on this dataset have written to."""
        told = {Path(run.config["mask_dir"]) for run in past_runs(self._root, [SEGMENTING]) if run.config.get("mask_dir")}
        kept = set(self._own_folder.iterdir()) if self._own_folder.is_dir() else set()
        return {folder for folder in (*told, *self._folders, *kept) if folder.is_absolute()}

    @cached_property
    def _used_elsewhere(self) -> set[Path]:
        """Folders of samples to which labels of other datasets point."""
        conn = get_db_conn()
        used: set[Path] = set()
        # What FiftyOne keeps of patches and clips is made from the samples again.
        others = {"_id": {"$ne": self._root._doc.id}, "sample_collection_name": {"$regex": "^samples\\."}}
        for document in conn.datasets.find(others, {"sample_fields": True, "sample_collection_name": True}):
            fields = _fields_of_masks(document)
            for folder in self._every_folder if fields else ():
                below = {"$gte": f"{folder}/", "$lt": f"{folder}0"}
                found = conn[document["sample_collection_name"]].find(
                    {"$or": [{field: below} for field in fields]}, dict.fromkeys(fields, True), max_time_ms=SEARCH_MILLISECONDS
                )
                used |= {Path(path).parent for sample in found for path in _mask_paths(sample, fields)}
        return used

    @property
    def _document(self) -> Mapping[str, Any]:
        """The dataset as MongoDB holds it: another process may have added a field."""
        return get_db_conn().datasets.find_one({"_id": self._root._doc.id}, {"sample_fields": True}) or {}

    def _documents(self, sample_ids: Collection[str], names: Mapping[str, bool]) -> Iterator[Mapping[str, Any]]:
        wanted = {"_id": {"$in": [ObjectId(sample_id) for sample_id in sample_ids]}}
        yield from get_db_conn()[self._root._sample_collection_name].find(wanted, names)


def _fields_of_masks(document: Mapping[str, Any]) -> list[str]:
    """The paths of a dataset's document under which its samples may keep masks of objects."""
    inner = {"fiftyone.core.labels.Detections": ".detections.mask_path", "fiftyone.core.labels.Detection": ".mask_path"}
    kinds = {field["name"]: field.get("embedded_doc_type") for field in document.get("sample_fields") or ()}
    return [f"{name}{inner[kind]}" for name, kind in kinds.items() if kind in inner]


def _mask_paths(sample: Mapping[str, Any], fields: Sequence[str]) -> Iterator[str]:
    """Every path of a mask in a sample's document."""
    for field in fields:
        name = field.partition(".")[0]
        value = sample.get(name) or {}
        for label in value.get("detections") or () if field.endswith(".detections.mask_path") else (value,):
            if label.get("mask_path"):
                yield str(label["mask_path"])
