"""Connections to MongoDB that break."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlparse

import fiftyone as fo
import pytest
from pymongo.errors import AutoReconnect, CursorNotFound, ServerSelectionTimeoutError

from refseg.dataset.connection import PAUSES, patiently
from refseg.dataset.contradictions import require_no_contradictions
from refseg.review.decisions import accept, reject, undo
from tests.faults.processes import OtherProcess
from tests.faults.proxy import Proxy
from tests.review.predictions import ids_of, labels_in, two_images

MakeDataset = Callable[..., fo.Dataset]


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refseg.dataset.connection.time.sleep", lambda seconds: None)


class TestPatiently:
    @pytest.mark.parametrize("error", [AutoReconnect("gone"), CursorNotFound("begun anew")])
    @pytest.mark.parametrize("failures", [0, 1, len(PAUSES)])
    def test_is_tried_again(self, no_pauses: None, failures: int, error: Exception) -> None:
        left = [error] * failures

        def update() -> str:
            if left:
                raise left.pop()
            return "done"

        assert patiently(update) == "done"

    @pytest.mark.parametrize(
        ("error", "tries"), [(AutoReconnect("gone"), len(PAUSES) + 1), (ServerSelectionTimeoutError("no"), 1)]
    )
    def test_not_for_ever(self, no_pauses: None, error: Exception, tries: int) -> None:
        tried = []

        def update() -> None:
            tried.append(1)
            raise error

        with pytest.raises(type(error)):
            patiently(update)
        assert len(tried) == tries


def decide_again_and_again(dataset: fo.Dataset, name: str, seconds: float) -> dict[str, Any]:
    """Accept, reject and undo until the time is up; what failed, without those that say that MongoDB could not be reached."""
    end, errors, number = time.monotonic() + seconds, [], 0
    while time.monotonic() < end:
        number += 1
        try:
            ids = ids_of(dataset)
            decision = (accept if number % 2 else reject)(dataset, ids)
            if number % 3 == 0:
                undo(dataset, decision)
        except AutoReconnect:
            # Read by FiftyOne, which tries again once.
            continue
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
    return {"errors": errors, "number": number}


decide_again_and_again.prepare = lambda name, seconds: fo.load_dataset(name)  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.thorough
def test_decisions_over_connections_that_break(make_dataset: MakeDataset) -> None:
    dataset = two_images(make_dataset)
    dataset.persistent = True
    port = urlparse(os.environ["FIFTYONE_DATABASE_URI"]).port
    assert port is not None
    with Proxy(port) as proxy:
        there = {"FIFTYONE_DATABASE_URI": proxy.uri}
        with OtherProcess(decide_again_and_again, dataset.name, 4.0, environment=there) as process:
            process.wait_until_ready()
            process.begin()
            for _ in range(12):
                time.sleep(0.3)
                proxy.drop()
            outcome = process.outcome()
    assert outcome.error is None
    assert outcome.value["errors"] == []
    assert outcome.value["number"] > 10
    assert proxy.num_dropped > 10
    dataset.reload()
    require_no_contradictions(dataset, ["accepted"], "rejected")
    copies = [label.prediction_id for field in ("accepted", "rejected") for label in labels_in(dataset, field)]
    assert sorted(copies) == sorted(set(copies))
