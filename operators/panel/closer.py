"""What a class's row shows beside its large crops: how the encoder sees each, and which candidates are most like it.

That takes an encoder pass for each crop and a scan of the index, so it is done beside the requests, one class after the other.
The browser asks again until it is done. What nobody asks for any more is given up, and the newest answers are kept.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators.executor import Executor

from ..forms.constants import PROTOTYPES_METHOD
from ..forms.selection import collection, shows_frames
from ..forms.weights import using_files
from ..running import background
from .acting import told
from .examples import every_image
from .telling import newest

logger = logging.getLogger(__name__)

MOST = 24
"""References and negatives of a class that are looked at."""
NEAREST = 3
"""Candidates shown for each."""
SIDE = 144
"""Of a candidate's picture, pixels: shown at half as many."""
KEPT = 8
"""Answers in memory, of up to a megabyte each."""
PATIENCE = 10.0
"""Seconds after which work that nobody asks for is given up."""

NOT_BUILT = "Build prototypes to see the features."
NOT_INDEXED = "Build the index to see the nearest candidates."
TOO_MANY = "The index holds too many candidates to compare them here: 'Find similar' makes a search index of them once."

_worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="refseg-closer")
_lock = threading.Lock()


@dataclass
class _Look:
    """A class that is being looked at, or was.

    Attributes:
        answer: None in the future where it was given up.
        asked_at: when somebody asked for it last, by time.monotonic.
    """

    asked_at: float
    answer: Future[dict[str, Any] | None] | None = None

    def require_asked(self, _: object = None) -> None:
        """Give up where nobody waits for it."""
        if time.monotonic() - self.asked_at > PATIENCE:
            raise _NobodyAsksError


class _NobodyAsksError(Exception):
    """Whoever asked has closed the row."""


_looks: OrderedDict[tuple[Any, ...], _Look] = OrderedDict()


class Closer:
    """A method of the panel, called by `js/closer.js` while a class's row is open."""

    @told
    def look_closer(self, ctx: Any) -> Any:
        """By label id what the encoder sees of references and the candidates most like them; whether that is still to come.

        Objects that the newest prototypes do not hold, by this name, are left out.
        """
        from refseg.dataset import index_records

        name, ids = ctx.params["name"], tuple(ctx.params["ids"])[:MOST]
        kept = newest(ctx, PROTOTYPES_METHOD)
        if kept is None:
            return {"waits": False, "found": {}, "notes": [NOT_BUILT], "failed": False}
        records = [
            record
            for record in index_records(collection(ctx))
            if (record["model"], record["encoder"]) == (kept["model"], kept["fingerprint"])
        ]
        indexed = tuple((record["uri"], str(record["updated_at"])) for record in records)
        key = (str(ctx.dataset._doc.id), shows_frames(ctx), kept["sha256"], name, ids, indexed)
        request = _request_of(ctx)
        about = _About(kept["key"], name, ids, max((record["num_candidates"] for record in records), default=None))
        found = _asked(key, lambda look: _look_closer(request, about, look.require_asked))
        return {"waits": True} if found is None else {"waits": False, **found}


@dataclass(frozen=True)
class _About:
    """What is looked at.

    Attributes:
        prototypes: the key under which the dataset keeps them.
        name: of the class.
        ids: of its references and negatives that are shown.
        num_candidates: of the largest index that can be searched; None where there is none.
    """

    prototypes: str
    name: str
    ids: tuple[str, ...]
    num_candidates: int | None


def _asked(key: tuple[Any, ...], work: Callable[[_Look], dict[str, Any] | None]) -> dict[str, Any] | None:
    """What is known, or None while it is worked on; whatever is asked for first is begun."""
    now = time.monotonic()
    with _lock:
        look = _looks.get(key)
        if look is None:
            look = _looks[key] = _Look(now)
        look.asked_at = now
        if look.answer is None:
            look.answer = _worker.submit(work, look)
        _looks.move_to_end(key)
        while len(_looks) > KEPT:
            _looks.popitem(last=False)
        if not look.answer.done():
            return None
        found = look.answer.result()
        if found is None or found["failed"]:
            # The next one who asks lets it be tried again.
            del _looks[key]
        return found


def _request_of(ctx: Any) -> dict[str, Any]:
    """What a context of the thread's own is made from: the dataset, or all frames where frames are open."""
    view = collection(ctx)
    stages = view._serialize() if isinstance(view, fo.DatasetView) else []
    return {"dataset_name": ctx.dataset.name, "group_slice": ctx.group_slice, "view": stages}


def _look_closer(request: dict[str, Any], about: _About, require_asked: Callable[..., None]) -> dict[str, Any] | None:
    """The work itself, on a dataset object of its own; None where it was given up."""
    from refseg.errors import RefSegError

    try:
        require_asked()
        ctx = foo.ExecutionContext(request, executor=Executor())
        background.isolate(ctx)
        with using_files(ctx):
            return _found(ctx, about, require_asked)
    except _NobodyAsksError:
        return None
    except RefSegError as error:
        text = str(error)
    except Exception as error:
        logger.exception("Looking closer at the class %r failed", about.name)
        text = f"This failed ({type(error).__name__}: {error}). The server's log has the details."
    return {"found": {}, "notes": [text], "failed": True}


def _found(ctx: Any, about: _About, require_asked: Callable[..., None]) -> dict[str, Any]:
    from refseg.dataset import load_prototypes
    from refseg.errors import RefSegError
    from refseg.runs import EXACT_UP_TO, nearest_candidates

    dataset, failed = collection(ctx), False
    notes: list[str] = []
    prototypes = load_prototypes(dataset, about.prototypes)
    known = [one for one in about.ids if one in _of_class(prototypes, about.name)]
    found: dict[str, dict[str, Any]] = {one: {"pca": None, "problem": None, "nearest": []} for one in known}
    if not known:
        return {"found": {}, "notes": [], "failed": False}
    try:
        near = nearest_candidates(dataset, prototypes, known, NEAREST, progress=require_asked)
        if not near:
            notes.append(TOO_MANY if (about.num_candidates or 0) > EXACT_UP_TO else NOT_INDEXED)
        for one, items in near.items():
            found[one]["nearest"] = [_shown(item) for item in items]
    except RefSegError as error:
        notes.append(str(error))
        failed = True
    try:
        for one, seen in _features(every_image(ctx), prototypes, about.name, known, require_asked).items():
            found[one] |= seen
    except RefSegError as error:
        notes.append(str(error))
        failed = True
    return {"found": found, "notes": notes, "failed": failed}


def _of_class(prototypes: Any, name: str) -> set[str]:
    """Ids of the references and negatives of a class."""
    rows = zip(prototypes.reference_ids, prototypes.labels.tolist(), strict=True)
    own = {one for one, row in rows if prototypes.classes[row] == name}
    negatives = prototypes.negatives
    return own | {one for one, of in zip(negatives.ids, negatives.names, strict=True) if of == name} if negatives else own


def _features(
    images: Any, prototypes: Any, name: str, ids: Sequence[str], require_asked: Callable[..., None]
) -> dict[str, Mapping[str, Any]]:
    """By label id the picture of the features, or why there is none."""
    from refseg.images import as_data_uri, as_jpeg
    from refseg.progress import drain
    from refseg.runs import iter_inspect_references

    own = [one for one in prototypes.reference_ids if one in _of_class(prototypes, name)]
    # A class has a reference, though all that are shown of it may be new.
    shown = {*ids, *([] if set(own) & set(ids) else own[:1])}
    others = [one for one in (*own, *(prototypes.negatives.ids if prototypes.negatives else ())) if one not in shown]
    work = iter_inspect_references(images, prototypes.remove(others), classes=[name], max_references=MOST)
    looked = drain(work, require_asked, "looking")
    pictures = {item.id: {"pca": as_data_uri(as_jpeg(item.pca))} for item in looked.references if item.id in ids}
    return {**pictures, **{one: {"problem": why} for one, why in looked.skipped if one in ids}}


def _shown(item: Any) -> dict[str, Any]:
    from refseg.errors import ImageError
    from refseg.images import as_data_uri, crop_thumbnail

    try:
        picture = as_data_uri(crop_thumbnail(item.filepath, item.bounding_box, side=SIDE, mask=item.mask))
    except ImageError as error:
        logger.info("A candidate is not shown: %s", error)
        picture = None
    name = Path(item.filepath).name
    return {"sample_id": item.sample_id, "similarity": round(item.similarity, 3), "picture": picture, "name": name}
