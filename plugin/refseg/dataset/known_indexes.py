"""What a dataset records of its indexes."""

from __future__ import annotations

from typing import Any

from ..errors import IndexNotFoundError
from ..images import PLAIN, PixelSettings
from ..index import delete_tables
from .fields import INDEX_METHOD, past_runs
from .run_records import remove_run
from .views import id_of, name_of


def index_records(dataset: Any) -> list[dict[str, Any]]:
    """What the dataset has recorded of its indexes, the one built or completed last at the end.

    Returns:
        For each: `key` of the run, `uri`, `model`, `exact`, `tiles`, `float_features`, `clean_masks`, `pixels` (as
        PixelSettings.as_lists), `fingerprint`, `encoder`, `num_images`, `num_candidates`, `num_bytes`, `seconds_per_image`
        (None where nothing was computed yet), `updated_at`.
    """
    records = []
    for run in past_runs(dataset, [INDEX_METHOD]):
        config = run.config
        # A clone inherits the records of the dataset it was made from, whose index holds that dataset's samples.
        if config["dataset_id"] == id_of(dataset):
            names = ("uri", "model", "exact", "fingerprint", "encoder", "num_images", "num_candidates", "num_bytes")
            record = {name: config[name] for name in (*names, "updated_at")}
            # Records of earlier versions say nothing of these.
            later = {name: bool(config.get(name, False)) for name in ("tiles", "float_features", "clean_masks")}
            about = {name: config.get(name) for name in ("pixels", "seconds_per_image")}
            records.append({"key": run.key, **later, **about, **record})
    return sorted(records, key=lambda record: str(record["updated_at"]))


def pixels_of_index(dataset: Any) -> PixelSettings:
    """How the images of a dataset are read, by its index used last that says so; plain where none does."""
    said = [record["pixels"] for record in index_records(dataset) if record["pixels"]]
    return PixelSettings.from_lists(said[-1]) if said else PLAIN


def delete_index(dataset: Any, key: str, *, storage_options: dict[str, str] | None = None) -> None:
    """Remove an index and the dataset's record of it; tables that are gone or damaged are no hindrance.

    Args:
        dataset: a FiftyOne dataset.
        key: of the record; see index_records.
        storage_options: for an object store, as Lance takes them.

    Raises:
        IndexNotFoundError: the dataset has no such record.
        IndexWriteError: no right to delete it.
    """
    for record in index_records(dataset):
        if record["key"] == key:
            delete_tables(record["uri"], storage_options)
            remove_run(dataset, key)
            return
    raise IndexNotFoundError(f"The dataset {name_of(dataset)!r} has no record of an index {key!r}.")
