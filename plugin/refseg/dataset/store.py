"""Prototypes kept with a FiftyOne dataset: a file in its data folder, named by its content, and a run that points to it."""

from __future__ import annotations

import logging
import uuid
from contextlib import suppress
from dataclasses import astuple, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import fiftyone as fo

from ..calibration import calibrator_for, default_thresholds, labelled_ids, num_mined
from ..checks import require_flags, require_names
from ..errors import DatasetError, PrototypeFileError
from ..failpoints import reach
from ..images import file_sha256
from ..insight import reference_quality
from ..matching import settings_for
from ..models import PRESETS
from ..names import run_key_from as run_key_from
from ..notebook import plain_page
from ..outputs import draft_of, remove_old_drafts
from ..prototypes import Prototypes, require_prototypes
from .fields import EMPTY_TAG, PROTOTYPES_METHOD, every_image, past_runs, whole_config
from .run_records import register
from .views import id_of, kept_with, name_of, open_collection, whole_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredPrototypes:
    """Where prototypes are kept.

    Attributes:
        name: the run's key.
        path: of the safetensors file.
        sha256: of the file.
    """

    name: str
    path: str
    sha256: str

    _repr_html_ = plain_page


def dataset_folder(dataset: Any) -> Path:
    """RefSeg's folder for this dataset under FiftyOne's data folder; by id, so that renaming the dataset loses nothing."""
    return Path(fo.config.default_dataset_dir) / "refseg" / id_of(dataset)


def write_prototypes(dataset: Any, prototypes: Prototypes) -> StoredPrototypes:
    """Write the prototypes' file, without a run; the same prototypes are written once.

    Raises:
        PrototypeFileError: none can be written there.
    """
    folder = dataset_folder(dataset) / "prototypes"
    # Two processes, or two jobs of one, may write at once.
    draft = draft_of(folder / uuid.uuid4().hex)
    try:
        prototypes.save(draft)
        sha256 = file_sha256(draft)
        path = folder / f"{sha256[:16]}.safetensors"
        draft.replace(path)
        remove_old_drafts(folder)
    except (OSError, PrototypeFileError) as error:
        reason = error.__cause__ or error
        raise PrototypeFileError(
            f"The prototypes of dataset {name_of(dataset)!r} cannot be kept in the folder {folder} ({reason}): make room "
            "there, or set FIFTYONE_DEFAULT_DATASET_DIR to a folder that can be written to; those kept before are as they were."
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return StoredPrototypes("", str(path), sha256)


def save_prototypes(dataset: Any, prototypes: Prototypes, name: str, *, overwrite: bool = False) -> StoredPrototypes:
    """Keep prototypes with a dataset under a name.

    Args:
        dataset: a FiftyOne dataset.
        prototypes: what to keep.
        name: a valid identifier, the key of the run.
        overwrite: replace prototypes of this name, which hold until the new ones are written.

    Raises:
        DatasetError: the name is no identifier, or taken.
        PrototypeFileError: see write_prototypes.
    """
    require_names(name=name)
    require_flags(overwrite=overwrite)
    require_prototypes(prototypes=prototypes)
    if not name.isidentifier():
        raise DatasetError(
            f"{name!r} cannot name prototypes: use letters, digits and underscores, such as {run_key_from(name)!r}."
        )
    whole = whole_of(open_collection(dataset))
    dataset = kept_with(dataset)
    replaces = {"method": PROTOTYPES_METHOD} if overwrite else None
    taken = DatasetError(f"The dataset {name_of(dataset)!r} has a run named {name!r} already: choose another name.")
    known = whole_config(dataset, name)
    if known and (replaces is None or known["method"] != PROTOTYPES_METHOD):
        raise taken
    stored = write_prototypes(dataset, prototypes)
    reach("prototypes.draft")
    config = dataset.init_run(
        method=PROTOTYPES_METHOD,
        path=stored.path,
        sha256=stored.sha256,
        model=prototypes.model,
        fingerprint=prototypes.fingerprint,
        # Pairs, not a mapping: class names may hold dots and dollar signs, which MongoDB refuses in keys.
        shots=[[label, count] for label, count in prototypes.shots.items()],
        reference_ids=list(prototypes.reference_ids),
        skipped=[list(pair) for pair in prototypes.skipped],
        quality=[list(astuple(item)) for item in reference_quality(prototypes)],
        negative_ids=list(labelled_ids(prototypes.negatives)),
        num_mined=num_mined(prototypes.negatives),
        # So forms need not open the file.
        pixels=prototypes.pixels.as_lists(),
        turned=prototypes.turned,
        **_calibration(whole, prototypes),
        saved_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    if not register(dataset, name, config, replaces=replaces):
        raise taken
    reach("prototypes.record")
    return StoredPrototypes(name, stored.path, stored.sha256)


def _calibration(dataset: Any, prototypes: Prototypes) -> dict[str, Any]:
    """The thresholds that the next run would take, and from how much they come; so forms need not open the file."""
    preset, around = PRESETS.get(prototypes.model), prototypes.surroundings
    calibrator, thresholds = None, {}
    if preset is not None:
        settings = settings_for(preset.as_published)
        calibrator = calibrator_for(prototypes, preset, settings)
        if calibrator is not None:
            thresholds = default_thresholds(prototypes, preset, settings, calibrator)
    shown = () if around is None else around.shown
    return {
        "thresholds": [list(pair) for pair in thresholds.items()],
        "num_learnt": 0 if calibrator is None else calibrator.num_right,
        "num_shown": sum(map(bool, shown)),
        "num_surroundings": len(shown) - sum(map(bool, shown)),
        # Tagged since, or not any more: then there is something new to learn.
        "num_empty": 0 if around is None else every_image(dataset).match_tags(EMPTY_TAG).count(),
    }


def load_prototypes(dataset: Any, name: str) -> Prototypes:
    """Prototypes kept under this name; the file must be the one that was written.

    Raises:
        DatasetError: the dataset keeps none of this name; the message lists those it does.
        PrototypeFileError: the file is gone, cannot be read, or was changed.
    """
    require_names(name=name)
    dataset = kept_with(dataset)
    config = whole_config(dataset, name)
    if config.get("method") != PROTOTYPES_METHOD:
        known = ", ".join(map(repr, list_prototypes(dataset))) or "none yet: build some first"
        raise DatasetError(f"The dataset {name_of(dataset)!r} keeps no prototypes named {name!r}; it keeps {known}.")
    path = config["path"]
    if not Path(path).is_file():
        raise PrototypeFileError(f"The file of the prototypes {name!r} is gone ({path}): build them again.")
    try:
        sha256 = file_sha256(path)
    except OSError as error:
        raise PrototypeFileError(f"The file of the prototypes {name!r} cannot be read ({error}): build them again.") from error
    if sha256 != config["sha256"]:
        raise PrototypeFileError(f"The file of the prototypes {name!r} was changed ({path}): build them again.")
    return Prototypes.load(path)


def named_prototypes(dataset: Any, given: Prototypes | str) -> tuple[str | None, Prototypes]:
    """Prototypes as they are, or those kept under a name, and this name.

    Raises:
        DatasetError: the dataset keeps none of this name.
        PrototypeError: they are neither.
        PrototypeFileError: see load_prototypes.
    """
    if isinstance(given, str):
        return given, load_prototypes(dataset, given)
    require_prototypes(prototypes=given)
    return None, given


def reusable_prototypes(dataset: Any, name: str | None = None) -> Prototypes | None:
    """Prototypes from which the next build can take vectors: those kept under this name, else the newest kept.

    None where there are none. A file that is gone or damaged only costs time, so it is logged and counts as none.
    """
    names = list_prototypes(dataset)
    if not names:
        return None
    try:
        return load_prototypes(dataset, name if name in names else names[-1])
    except PrototypeFileError as error:
        logger.warning("No earlier prototypes are reused: %s", error)
        return None


def list_prototypes(dataset: Any) -> list[str]:
    """Names of the prototypes kept with a dataset, newest last."""
    return [run.key for run in past_runs(kept_with(dataset), [PROTOTYPES_METHOD])]
