"""Why jobs failed: kept with the dataset, a reason for each section of the panel, until its next run or its dismissal."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)

STORE = "refseg_failures"
PANEL_JOB = "panel_job"
"""Parameter that names the panel's button by which a job was started."""

_SECTIONS = {
    **dict.fromkeys(("build_index", "delete_index", "index_status"), "index"),
    **dict.fromkeys(
        (
            *("build_prototypes", "calibrate", "mine_negatives", "inspect_prototypes", "show_heatmap", "sample_references"),
            *("tag_references", "show_object", "mark_empty"),
        ),
        "references",
    ),
    **dict.fromkeys(("segment", "segment_with_references", "learn"), "segment"),
    "suggest_references": "suggested",
    "update": "review",
    **dict.fromkeys(("review", "merge_accepted"), "review"),
    **dict.fromkeys(("evaluate", "write_counts"), "results"),
}
OTHERS = "others"
"""Where the reasons of all other operators are told: below the sections."""


def section_of(operator: str, params: Mapping[str, Any]) -> str:
    """The panel's section in which an execution belongs.

    Example:
        >>> section_of("learn", {}), section_of("learn", {"only_prototypes": True}), section_of("find_similar", {})
        ('segment', 'references', 'others')
    """
    if operator == "learn" and params.get("only_prototypes"):
        return "references"
    return _SECTIONS.get(operator, OTHERS)


def keep_failure(ctx: Any, operator: str, label: str, text: str) -> None:
    """Keep why an execution failed. Trouble with it is logged: the execution's own error must not be lost for it.

    Args:
        ctx: FiftyOne's execution context, of the execution.
        operator: the operator's name.
        label: what the App calls it.
        text: the sentence.
    """
    about = {"operator": operator, "label": label, "text": text, "at": time.time(), "job": ctx.params.get(PANEL_JOB)}
    try:
        ctx.store(STORE).set(section_of(operator, ctx.params), about)
    except Exception:
        logger.exception("Why %s failed cannot be kept: %s", label, text)


def forget_failure(ctx: Any, section: str) -> None:
    """Forget why the last execution of a section failed: another one is started, or someone has read it."""
    ctx.store(STORE).delete(section)


def forget_earlier(ctx: Any, operator: str) -> None:
    """The same as an execution begins, which trouble with it does not hold up."""
    try:
        forget_failure(ctx, section_of(operator, ctx.params))
    except Exception as error:
        logger.info("Why an execution failed earlier is still told: %s", error)


def kept_failures(ctx: Any) -> dict[str, dict[str, Any]]:
    """What is kept, by section: `operator`, `label`, `text`, `at` (seconds since the epoch) and the panel's `job`, if any."""
    store = ctx.store(STORE)
    found = {section: store.get(section) for section in store.list_keys()}
    return {section: about for section, about in found.items() if about is not None}
