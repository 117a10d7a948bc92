"""FiftyOne's own COCO evaluation as a generator, so that it can be watched and cancelled."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import fiftyone as fo

from ..dataset import labels, name_of
from ..errors import DatasetError
from ..masks import flag_of
from ..names import run_key_from
from ..progress import Progress

CROWD = "iscrowd"
"""The attribute of crowds: FiftyOne's default."""

_settings_lock = threading.Lock()
"""Beside a watcher FiftyOne draws a bar unless its global setting forbids it: one evaluation at a time changes that."""


class _CancelledError(Exception):
    """Raised inside FiftyOne's loop when nobody waits for it any more."""


def default_key(dataset: Any, pred_field: str) -> str:
    """The key of a field's evaluation where none was chosen; not one that evaluates another field."""
    base = f"eval_{run_key_from(pred_field)}"
    key, number = base, 2
    while dataset.has_evaluation(key) and getattr(dataset.get_evaluation_info(key).config, "pred_field", None) != pred_field:
        key, number = f"{base}_{number}", number + 1
    return key


def check_key(dataset: Any, key: str, pred_field: str, gt_field: str) -> None:
    """Refuse a key that cannot be used; one of an earlier evaluation of the same two fields can.

    Raises:
        DatasetError: the key is not valid, or another evaluation has it.
    """
    if not key.isidentifier() or key.startswith("_"):
        wanted = run_key_from(key)
        raise DatasetError(f"{key!r} cannot name an evaluation: use letters, digits and underscores, such as {wanted!r}.")
    config = dataset.get_evaluation_info(key).config if dataset.has_evaluation(key) else None
    if config is not None and (getattr(config, "pred_field", None), getattr(config, "gt_field", None)) != (
        pred_field,
        gt_field,
    ):
        raise DatasetError(
            f"The dataset {name_of(dataset)!r} has another evaluation named {key!r}: choose another key, or delete that one."
        )


def iter_evaluate_in_fiftyone(
    view: Any,
    pred_field: str,
    gt_field: str,
    *,
    key: str,
    classes: Sequence[str],
    use_masks: bool,
    start: int,
) -> Generator[Progress, None, float]:
    """Run FiftyOne's COCO evaluation, which goes over the images twice; closing the generator deletes it.

    Args:
        view: what to evaluate.
        pred_field: Detections.
        gt_field: Detections.
        key: as check_key wants it; an earlier evaluation under it is deleted.
        classes: all classes.
        use_masks: compare masks, which every label must then have, instead of boxes.
        start: steps done before this; as many as each pass has.

    Returns:
        The mAP; -1 where there is no ground truth.
    """

    def work(watch: Callable[[Any], None]) -> Any:
        with _settings_lock:
            before = fo.config.show_progress_bars
            fo.config.show_progress_bars = False
            try:
                with _our_readers():
                    return view.evaluate_detections(
                        *(pred_field, gt_field, key, list(classes)),
                        method="coco",
                        use_masks=use_masks,
                        compute_mAP=True,
                        progress=watch,
                    )
            finally:
                fo.config.show_progress_bars = before

    if view.has_evaluation(key):
        view.delete_evaluation(key)
    finished = False
    try:
        results = yield from _watch(work, start, 3 * start)
        finished = True
    finally:
        if not finished and view.has_evaluation(key):
            view.delete_evaluation(key)
    return float(results.mAP())


@contextmanager
def _our_readers() -> Iterator[None]:
    """Let FiftyOne see masks and crowds as RefSeg does, in this thread alone.

    By itself it fails on masks with colours or alpha, and takes the text "0" for a crowd.
    """
    read_mask, read_value, thread = fo.Detection.get_mask, fo.Detection.get_attribute_value, threading.get_ident()

    def get_mask(label: Any) -> Any:
        return labels.read_mask(label) if threading.get_ident() == thread else read_mask(label)

    def get_attribute_value(label: Any, name: str, *default: Any) -> Any:
        value = read_value(label, name, *default)
        return flag_of(value) if name == CROWD and threading.get_ident() == thread else value

    fo.Detection.get_mask, fo.Detection.get_attribute_value = get_mask, get_attribute_value
    try:
        yield
    finally:
        fo.Detection.get_mask, fo.Detection.get_attribute_value = read_mask, read_value


def _watch(work: Callable[[Callable[[Any], None]], Any], start: int, total: int) -> Generator[Progress, None, Any]:
    """Run work in a thread, because it reports by callback and a generator must yield; twice it counts all images."""
    steps: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    cancelled = threading.Event()
    outcome: list[Any] = []
    failure: list[BaseException] = []
    offset = [start, -1]  # steps before the pass that runs, and the last count seen in it

    def callback(bar: Any) -> None:
        if cancelled.is_set():
            raise _CancelledError
        if bar.iteration < offset[1]:
            offset[0] += start
        offset[1] = bar.iteration
        steps.put(min(total, offset[0] + bar.iteration))

    def run() -> None:
        try:
            outcome.append(work(callback))
        except BaseException as error:  # raised again where the generator runs
            failure.append(error)
        finally:
            steps.put(None)

    thread = threading.Thread(target=run, name="refseg-evaluate", daemon=True)
    thread.start()
    try:
        while (done := steps.get()) is not None:
            yield Progress(done, total, "evaluation steps")
    finally:
        cancelled.set()
        thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
