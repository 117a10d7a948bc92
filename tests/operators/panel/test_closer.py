"""A class's row, opened: what is beside the large crops, while it is still made, and where it cannot be made."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from PIL import Image

import refseg
from refseg.dataset.index_finding import open_index
from refseg.dataset.store import load_prototypes
from refseg.runs.near_candidates import nearest_candidates
from tests.operators.app_panel import press
from tests.operators.panel.shelf import loaded
from tests.operators.panel.tagging import STAR, index_and_choose, learn, tag

NO_PROTOTYPES = "Build prototypes to see the features."
NO_INDEX = "Build the index to see the nearest candidates."


@pytest.fixture(autouse=True)
def nothing_is_kept(trays: fo.Dataset) -> Iterator[None]:
    loaded("closer")._looks.clear()
    yield
    loaded("closer")._looks.clear()


@pytest.fixture
def learnt(trays: fo.Dataset) -> fo.Dataset:
    """Four indexed trays; the objects of the first two are references, a star of the third is a negative."""
    tag(trays[:2], "reference")
    learn(trays)
    index_and_choose(trays)
    trays.reload()
    return trays


def ids_of(dataset: fo.Dataset, name: str = STAR) -> list[str]:
    return [label.id for sample in dataset for label in sample.ground_truth.detections if label.label == name]


def look(dataset: fo.Dataset, ids: list[str], name: str = STAR) -> dict[str, Any]:
    """What the row shows in the end; a minute is far more than any takes."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = press(dataset, "look_closer", {"name": name, "ids": ids})
        assert answer.notes == []
        if not answer.result["waits"]:
            shown: dict[str, Any] = answer.result
            return shown
        assert answer.result == {"waits": True}
        time.sleep(0.02)
    raise AssertionError("There is no answer")


def picture(uri: str) -> Image.Image:
    assert uri.startswith("data:image/jpeg;base64,")
    return Image.open(BytesIO(base64.b64decode(uri.partition(",")[2])))


class TestShown:
    def test_features_and_nearest_candidates(self, learnt: fo.Dataset) -> None:
        ids = ids_of(learnt[:2])
        shown = look(learnt, ids)
        assert (shown["notes"], shown["failed"]) == ([], False)
        assert list(shown["found"]) == ids
        prototypes = load_prototypes(learnt, "parts")
        expected = nearest_candidates(learnt, prototypes, ids, progress=False)
        references = refseg.inspect_references(learnt, prototypes, classes=[STAR], progress=False)
        sizes = {item.id: item.pca.size for item in references}
        for one in ids:
            seen = shown["found"][one]
            assert seen["problem"] is None
            assert picture(seen["pca"]).size == sizes[one]
            near = [(item.sample_id, pytest.approx(item.similarity, abs=6e-4)) for item in expected[one]]
            assert [(item["sample_id"], item["similarity"]) for item in seen["nearest"]] == near
            assert len(near) == 3
            for item in seen["nearest"]:
                assert item["name"] == learnt[item["sample_id"]].filename
                assert picture(item["picture"]).size == (144, 144)

    def test_is_made_beside_the_request_and_once(self, learnt: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        module, begun, may_end, times = loaded("closer"), threading.Event(), threading.Event(), []

        def held(*given: Any) -> Any:
            times.append(threading.current_thread().name)
            begun.set()
            assert may_end.wait(60)
            return found(*given)

        found = module._found
        monkeypatch.setattr(module, "_found", held)
        ids = ids_of(learnt[:2])
        params = {"name": STAR, "ids": ids}
        assert press(learnt, "look_closer", params).result == {"waits": True}
        assert begun.wait(60)
        assert press(learnt, "look_closer", params).result == {"waits": True}
        may_end.set()
        assert list(look(learnt, ids)["found"]) == ids
        assert press(learnt, "look_closer", params).result["waits"] is False
        assert len(times) == 1
        assert times[0].startswith("refseg-closer")

    def test_what_nobody_asks_for_is_given_up(self, learnt: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        module = loaded("closer")
        ids = ids_of(learnt[:2])
        monkeypatch.setattr(module, "PATIENCE", -1.0)
        press(learnt, "look_closer", {"name": STAR, "ids": ids})
        (given_up,) = module._looks.values()
        assert given_up.answer.result(60) is None
        monkeypatch.undo()
        # Whoever asks again has it done.
        assert press(learnt, "look_closer", {"name": STAR, "ids": ids}).result == {"waits": True}
        assert list(look(learnt, ids)["found"]) == ids

    def test_what_the_prototypes_do_not_hold_is_left_out(self, learnt: fo.Dataset) -> None:
        known, new = ids_of(learnt[:2]), ids_of(learnt[2:3])
        tag(learnt[2:3], "reference")
        shown = look(learnt, [*new, *known])
        assert list(shown["found"]) == known
        assert look(learnt, new) == {"waits": False, "found": {}, "notes": [], "failed": False}
        # Learnt as something else.
        assert look(learnt, known, "another")["found"] == {}

    def test_negatives_of_the_class(self, learnt: fo.Dataset) -> None:
        tag(learnt[2:3], "negative")
        learn(learnt)
        learnt.reload()
        (negative,) = ids_of(learnt[2:3])
        seen = look(learnt, [negative])["found"][negative]
        assert picture(seen["pca"]).size[0] > 0
        assert len(seen["nearest"]) == 3

    def test_other_prototypes_are_looked_at_again(self, learnt: fo.Dataset) -> None:
        ids = ids_of(learnt[:3])
        assert list(look(learnt, ids)["found"]) == ids[:2]
        tag(learnt[2:3], "reference")
        learn(learnt)
        learnt.reload()
        assert list(look(learnt, ids)["found"]) == ids

    def test_a_few_answers_are_kept(self, learnt: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loaded("closer"), "KEPT", 2)
        first, second = ids_of(learnt[:2])
        for ids in ([first], [second], [first, second]):
            look(learnt, ids)
        assert [key[4] for key in loaded("closer")._looks] == [(second,), (first, second)]


class TestNotes:
    def test_no_prototypes(self, trays: fo.Dataset) -> None:
        tag(trays[:1], "reference")
        shown = look(trays, ids_of(trays[:1]))
        assert shown == {"waits": False, "found": {}, "notes": [NO_PROTOTYPES], "failed": False}

    def test_no_index_yet(self, learnt: fo.Dataset) -> None:
        open_index(learnt, "demo").delete()
        ids = ids_of(learnt[:2])
        shown = look(learnt, ids)
        assert shown["notes"] == [NO_INDEX]
        assert [(bool(seen["pca"]), seen["nearest"]) for seen in shown["found"].values()] == [(True, [])] * 2
        # It is not kept once there is one.
        refseg.build_index(learnt, "demo", num_workers=0, progress=False)
        shown = look(learnt, ids)
        assert shown["notes"] == []
        assert all(len(seen["nearest"]) == 3 for seen in shown["found"].values())

    def test_too_many_candidates(self, learnt: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("refseg.runs.similar.EXACT_UP_TO", 1)
        monkeypatch.setattr("refseg.runs.EXACT_UP_TO", 1, raising=False)
        (note,) = look(learnt, ids_of(learnt[:2]))["notes"]
        assert note.startswith("The index holds too many candidates to compare them here: 'Find similar' makes")

    def test_an_image_that_cannot_be_read(self, learnt: fo.Dataset) -> None:
        first, second = ids_of(learnt[:2])
        with open(learnt.first().filepath, "wb") as file:
            file.write(b"no image")
        found = look(learnt, [first, second])["found"]
        assert found[first]["pca"] is None
        assert f"{learnt.first().filename}" in found[first]["problem"]
        assert (found[second]["pca"] is None, found[second]["problem"]) == (False, None)

    def test_weights_from_files(self, learnt: fo.Dataset) -> None:
        """The thread takes those that are kept with the dataset; what is wrong with them is told, and tried again."""
        ids = ids_of(learnt[:2])
        store = foo.ExecutionContext(request_params={"dataset_name": learnt.name}).store("refseg_weights")
        store.set("demo", {"sam2_path": "/nowhere/sam2.safetensors", "dinov2_path": None, "since": 0.0})
        shown = look(learnt, ids)
        (note,) = shown["notes"]
        assert "/nowhere/sam2.safetensors" in note
        assert [(seen["pca"], len(seen["nearest"])) for seen in shown["found"].values()] == [(None, 3)] * 2
        store.delete("demo")
        assert all(seen["pca"] for seen in look(learnt, ids)["found"].values())

    def test_whatever_else_fails(
        self, learnt: fo.Dataset, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_: Any) -> None:
            raise RuntimeError("broken")

        monkeypatch.setattr(loaded("closer"), "_found", fail)
        ids = ids_of(learnt[:2])
        assert look(learnt, ids) == {
            "waits": False,
            "found": {},
            "notes": ["This failed (RuntimeError: broken). The server's log has the details."],
            "failed": True,
        }
        assert "Traceback" in caplog.text
        monkeypatch.undo()
        assert list(look(learnt, ids)["found"]) == ids
