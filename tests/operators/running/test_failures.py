"""In which section of the panel an execution belongs, and what is kept of one that failed."""

from __future__ import annotations

import logging
from typing import Any

import fiftyone as fo
import pymongo.errors
import pytest
from fiftyone.operators.store import ExecutionStore

from operators.panel.sections import SECTIONS
from operators.running import failures
from operators.running.failures import OTHERS, forget_earlier, keep_failure, kept_failures, section_of
from tests.operators.app_panel import context
from tests.operators.test_register import NAMES


def test_every_operator_has_a_section() -> None:
    found = {name: section_of(name, {}) for name in NAMES}
    assert set(found.values()) <= {*SECTIONS, OTHERS}
    assert {name for name, section in found.items() if section == OTHERS} == {"find_similar", "cancel"}
    assert set(failures._SECTIONS) <= set(NAMES)


def test_one_of_a_section_is_kept(dataset: fo.Dataset) -> None:
    ctx = context(dataset)
    keep_failure(ctx, "build_index", "Build index", "First.")
    keep_failure(ctx, "build_index", "Build index", "Second.")
    keep_failure(ctx, "evaluate", "Evaluate", "Third.")
    assert {name: about["text"] for name, about in kept_failures(ctx).items()} == {"index": "Second.", "results": "Third."}
    forget_earlier(ctx, "index_status")
    assert set(kept_failures(ctx)) == {"results"}


def test_an_unreachable_store_holds_nothing_up(
    dataset: fo.Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise pymongo.errors.AutoReconnect("no server")

    for method in ("set", "delete"):
        monkeypatch.setattr(ExecutionStore, method, fail)
    ctx = context(dataset)
    with caplog.at_level(logging.INFO, failures.__name__):
        keep_failure(ctx, "segment", "Segment", "This is wrong: do that.")
        forget_earlier(ctx, "segment")
    assert "Why Segment failed cannot be kept: This is wrong: do that." in caplog.text
    assert "Why an execution failed earlier is still told: no server" in caplog.text
