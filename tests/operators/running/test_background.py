"""Jobs that nobody waits for: in a thread of the server or queued, told at the end, cancelled, listed while they live."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.core.odm import RunDocument
from fiftyone.operators.delegated import DelegatedOperationService

import refseg.runs.segmenting
from operators.running import background, jobs
from refseg.dataset.references import collect_references
from refseg.dataset.source_settings import SourceSettings
from refseg.dataset.store import save_prototypes
from refseg.errors import DatasetError
from refseg.progress import Progress
from refseg.prototypes.building import build_prototypes
from tests.operators.app_panel import choose, context, failures, press, run_job, watch_to_the_end
from tests.operators.helpers import named, uri
from tests.trays import propose_truth, tray_samples

pytestmark = pytest.mark.usefixtures("every_step")

CANCELLED = "Segment was cancelled; the predictions written so far are kept."


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[fo.Sample]:
    return tray_samples(tmp_path_factory.mktemp("images"))


@pytest.fixture
def trays(
    make_dataset: Callable[..., fo.Dataset], drawn: list[fo.Sample], monkeypatch: pytest.MonkeyPatch
) -> Iterator[fo.Dataset]:
    """Four trays whose candidates are the ground truth, and prototypes of the first; no job outlives the test."""
    dataset = make_dataset([sample.copy() for sample in drawn])
    propose_truth(monkeypatch, dataset)
    dataset[:1].select_labels(fields="ground_truth").tag_labels("reference", label_fields="ground_truth")
    prototypes = build_prototypes(collect_references(dataset, "ground_truth", tags="reference"), "demo", progress=False)
    save_prototypes(dataset, prototypes, "parts")
    yield dataset
    for thread in own_threads():
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """Segmentation that waits before its first image until it is let go."""
    hold = Held()
    real = refseg.runs.segmenting.iter_segment

    def iter_segment(*args: Any, sources: SourceSettings, **kwargs: Any) -> Generator[Progress, None, Any]:
        with closing(real(*args, sources=replace(sources, num_workers=0), **kwargs)) as work:
            while True:
                try:
                    step = next(work)
                except StopIteration as end:
                    return end.value
                if step.done:
                    hold.started.set()
                    assert hold.go_on.wait(60)
                yield step

    monkeypatch.setattr(refseg.runs, "iter_segment", iter_segment)
    yield hold
    hold.go_on.set()


class Held:
    """Whether a job has begun, and whether it may go on."""

    def __init__(self) -> None:
        self.started, self.go_on = threading.Event(), threading.Event()


def own_threads() -> list[threading.Thread]:
    """Those that `background` starts; other parts of the panel keep threads of their own."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(background.THREADS)]


def start(dataset: fo.Dataset, job: str = "segment", params: dict[str, Any] | None = None, **request: Any) -> str:
    answer = press(dataset, "start", {"job": job, **(params or {})}, **request)
    assert answer.notes == []
    return str(answer.result["id"])


def listed(dataset: fo.Dataset) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = press(dataset, "on_load").data["overview"]["jobs"]
    return found


class TestInAThread:
    def test_is_listed_then_told(self, trays: fo.Dataset, held: Held) -> None:
        job_id = start(trays)
        assert held.started.wait(60)
        (thread,) = own_threads()
        assert thread.daemon
        (job,) = listed(trays)
        assert job.pop("seconds") >= 0
        assert job == {
            "id": job_id,
            "operator": "segment",
            "label": "Segment",
            "fraction": 0.0,
            "done": 0,
            "total": 4,
            "step": "images",
            "text": "images 0 of 4",
            "left": None,
            "found": 0,
            "is_cancelled": False,
        }
        answer = press(trays, "watch", {"known": [job_id]})
        assert (answer.result["ended"], answer.notes) == ([], [])
        assert [entry["id"] for entry in answer.result["jobs"]] == [job_id]

        held.go_on.set()
        answer = watch_to_the_end(trays, job_id)
        number = trays.count("predictions.detections")
        ((variant, text),) = answer.notes
        assert variant == "success"
        assert text.startswith(f"{number} instances in 4 images")
        assert "reload_dataset" in answer.operators
        assert answer.data["overview.jobs"] == listed(trays) == []
        assert answer.data["review"]["num_open"] == number
        # Who has been told does not ask again, and is not told again; a second browser is told too.
        assert press(trays, "watch", {"known": []}).notes == []
        assert press(trays, "watch", {"known": [job_id]}).notes == [(variant, text)]

    def test_what_is_told_survives_the_database(self, trays: fo.Dataset) -> None:
        run_job(trays, "index")
        answer = run_job(trays, "preview")
        # A view's stages hold keys that MongoDB refuses.
        (shown,) = named(answer.messages, "set_view")
        view = fo.DatasetView._build(trays, shown["view"])
        assert set(view.values("id")) <= set(trays.values("id"))
        store = context(trays).store(background.OUTCOMES)
        assert all(store.get_metadata(key)["expires_at"] is not None for key in store.list_keys())

    @pytest.mark.thorough
    def test_its_runs_are_kept_while_others_load_the_dataset(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        """As each request of the App does; here at the worst moment, between reading and writing the list of runs."""
        real = RunDocument.save

        def save(document: RunDocument, *args: Any, **kwargs: Any) -> Any:
            result = real(document, *args, **kwargs)
            fo.load_dataset(trays.name, reload=True)
            gc.collect()
            return result

        monkeypatch.setattr(RunDocument, "save", save)
        assert run_job(trays, "segment").notes[0][0] == "success"
        assert len(trays.list_runs(method="refseg/segment")) == 1
        assert run_job(trays, "evaluate").notes[0][0] == "success"
        assert trays.list_evaluations() == ["eval_predictions"]

    def test_cancelled_within_its_batch(self, trays: fo.Dataset, held: Held) -> None:
        job_id = start(trays)
        assert held.started.wait(60)
        answer = press(trays, "cancel", {"id": job_id})
        assert answer.notes == [("info", "Segment ends after its current batch; what is done is kept.")]
        assert [job["is_cancelled"] for job in answer.data["overview.jobs"]] == [True]
        held.go_on.set()
        assert watch_to_the_end(trays, job_id).notes == [("info", CANCELLED)]
        assert listed(trays) == []
        (key,) = trays.list_runs(method="refseg/segment")
        assert trays.get_run_info(key).config.state == "cancelled"
        assert 0 < len(trays.exists("predictions")) < 4

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (DatasetError("This is wrong: do that."), "This is wrong: do that."),
            (RuntimeError("broken"), "Segment failed (RuntimeError: broken). The server's log has the details."),
        ],
    )
    def test_that_fails(self, trays: fo.Dataset, error: Exception, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its reason stands in its section until the next run there, or until somebody dismisses it; nothing is notified."""

        def fail(*_: object, **__: object) -> Generator[Progress, None, None]:
            yield Progress(0, 1, "images")
            raise error

        def kept() -> dict[str, Any]:
            found = failures(trays)
            assert {abs(time.time() - about.pop("at")) < 60 for about in found.values()} <= {True}
            return found

        with monkeypatch.context() as patch:
            patch.setattr(refseg.runs, "iter_segment", fail)
            answer = run_job(trays, "segment")
            assert answer.notes == []
            assert set(answer.data["overview.failures"]) == {"segment"}
            assert listed(trays) == []
            expected = {"segment": {"operator": "segment", "label": "Segment", "text": told, "job": "segment"}}
            assert kept() == expected
            run_job(trays, "index")
            assert kept() == expected
            assert press(trays, "dismiss", {"section": "index"}).data == {"overview.failures": failures(trays)}
            assert press(trays, "dismiss", {"section": "segment"}).data == {"overview.failures": {}}
            assert kept() == {}
            run_job(trays, "segment")
            assert kept() == expected
        answer = press(trays, "start", {"job": "segment"})
        assert answer.data["overview.failures"] == {}
        assert watch_to_the_end(trays, answer.result["id"]).notes[0][0] == "success"
        assert kept() == {}

    def test_nothing_is_tagged(self, trays: fo.Dataset) -> None:
        trays.untag_labels("reference", label_fields="ground_truth")
        assert run_job(trays, "learn").notes == []
        # Pressed among the references.
        ((section, about),) = failures(trays).items()
        assert (section, about["job"]) == ("references", "learn")
        assert about["text"].startswith(
            f"No object of dataset {trays.name!r} carries the tag 'reference' (looked in 'ground_truth'): tag"
        )

    @pytest.mark.parametrize("job", ["segment", "preview", "learn", "index", "evaluate"])
    def test_what_its_form_refuses_is_not_started(self, trays: fo.Dataset, job: str) -> None:
        refused = {
            "segment": "The labels in the field 'ground_truth' are not RefSeg's: name another field.",
            "preview": "A preview looks at indexed images alone, and none of these is indexed yet: run 'Build index' first.",
            "evaluate": "No field but 'ground_truth' holds objects, so there is nothing to compare the predictions with.",
        }
        if job != "preview":
            choose(trays, label_field="ground_truth")
        answer = press(trays, "start", {"job": job})
        if job not in refused:
            assert answer.notes == []
            watch_to_the_end(trays, answer.result["id"])
            return
        assert (answer.error, answer.result) == (refused[job], None)
        assert own_threads() == []
        assert context(trays).store(background.OUTCOMES).list_keys() == []
        assert failures(trays) == {}

    def test_only_the_view(self, trays: fo.Dataset) -> None:
        view = trays.limit(2)
        watch_to_the_end(trays, start(trays, params={"only_view": True}, view=view))
        assert [run is not None for run in trays.values("predictions")] == [True, True, False, False]
        # Patches stand for their images.
        patches = trays.skip(3).to_patches("ground_truth")
        watch_to_the_end(trays, start(trays, params={"only_view": True}, view=patches))
        assert [run is not None for run in trays.values("predictions")] == [True, True, False, True]
        # The whole dataset, whatever is open, unless it was asked for.
        watch_to_the_end(trays, start(trays, view=view))
        assert None not in trays.values("predictions")
        watch_to_the_end(trays, start(trays, params={"only_view": True}))


class TestDelegated:
    @pytest.fixture(autouse=True)
    def allowed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fo.config, "allow_legacy_orchestrators", True)

    def test_waits_runs_and_is_told(self, trays: fo.Dataset) -> None:
        assert press(trays, "on_load").data["overview"]["can_delegate"] is True
        job_id = start(trays, params={"delegate": True, "only_view": True}, view=trays.limit(2))
        assert own_threads() == []
        (job,) = listed(trays)
        assert (job["id"], job["operator"], job["text"]) == (job_id, "segment", "waits for `fiftyone delegated launch`")
        assert (job["fraction"], job["left"], job["is_cancelled"]) == (None, None, False)
        assert press(trays, "watch", {"known": [job_id]}).result["ended"] == []
        DelegatedOperationService().execute_queued_operations(limit=1)
        answer = press(trays, "watch", {"known": [job_id]})
        assert answer.result == {"jobs": [], "ended": [job_id]}
        ((variant, text),) = answer.notes
        assert variant == "success"
        assert " in 2 images" in text
        trays.reload()
        assert len(trays.exists("predictions")) == 2

    def test_is_taken_out_of_the_queue(self, trays: fo.Dataset) -> None:
        job_id = start(trays, "index", {"delegate": True})
        answer = press(trays, "cancel", {"id": job_id})
        assert answer.notes == [("info", "Taken out of the queue.")]
        assert answer.data["overview.jobs"] == []
        assert press(trays, "cancel", {"id": job_id}).notes == [("info", "There is nothing to cancel: the job has ended.")]
        assert [background.withdraw(context(trays), other) for other in (job_id, "7f", "")] == [False, False, False]

    def test_what_another_dataset_or_plugin_has_queued_stays(
        self, trays: fo.Dataset, make_dataset: Callable[..., fo.Dataset]
    ) -> None:
        service = DelegatedOperationService()
        others = {"@voxel51/operators/create_index": trays, uri("segment"): make_dataset([])}
        for operator, dataset in others.items():
            request = {"dataset_name": dataset.name, "dataset_id": str(dataset._doc.id), "params": {}}
            queued = service.queue_operation(operator, context=foo.ExecutionContext(request).serialize())
            answer = press(trays, "cancel", {"id": str(queued.id)})
            assert answer.notes == [("info", "There is nothing to cancel: the job has ended.")]
            assert service.get(queued.id).run_state == "queued"
            service.delete_operation(queued.id)

    def test_that_fails_is_told(self, trays: fo.Dataset) -> None:
        trays.untag_labels("reference", label_fields="ground_truth")
        job_id = start(trays, "learn", {"delegate": True})
        DelegatedOperationService().execute_queued_operations(limit=1)
        assert press(trays, "watch", {"known": [job_id]}).notes == []
        about = failures(trays)["references"]
        assert (about["operator"], about["job"]) == ("learn", "learn")
        assert about["text"].startswith(f"No object of dataset {trays.name!r} carries the tag 'reference'")

    def test_what_its_form_refuses_is_not_queued(self, trays: fo.Dataset) -> None:
        choose(trays, label_field="ground_truth")
        assert press(trays, "start", {"job": "segment", "delegate": True}).error.startswith("The labels in the field")
        assert listed(trays) == []

    def test_others_jobs_are_not_listed(self, trays: fo.Dataset, make_dataset: Callable[..., fo.Dataset]) -> None:
        other = make_dataset([fo.Sample("a.png")])
        start(trays, "index", {"delegate": True})
        assert listed(other) == []

    def test_where_it_is_not_allowed_it_runs_here(self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fo.config, "allow_legacy_orchestrators", False)
        assert press(trays, "on_load").data["overview"]["can_delegate"] is False
        job_id = start(trays, params={"delegate": True})
        assert watch_to_the_end(trays, job_id).notes[0][0] == "success"


class TestList:
    def entry(self, dataset: fo.Dataset, **changes: Any) -> dict[str, Any]:
        """The entry of a job, and with it the job, as another process writes it."""
        listing = jobs.Listing(context(dataset), "segment", "Segment")
        listing.open()
        store = context(dataset).store(jobs.ENTRIES)
        (key,) = store.list_keys()
        entry: dict[str, Any] = {**store.get(key), **changes}
        store.set(key, entry)
        return entry

    def test_a_job_whose_process_died(self, dataset: fo.Dataset, trays: fo.Dataset) -> None:
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        gone = self.entry(trays, pid=process.pid)
        assert listed(trays) == []
        assert press(trays, "cancel", {"id": gone["id"]}).notes == [("info", "There is nothing to cancel: the job has ended.")]

    def test_a_job_of_another_machine(self, trays: fo.Dataset) -> None:
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        elsewhere = self.entry(trays, pid=process.pid, host="another")
        assert [job["id"] for job in listed(trays)] == [elsewhere["id"]]

    def test_time_left(self, trays: fo.Dataset) -> None:
        entry = self.entry(trays)
        store = context(trays).store(jobs.ENTRIES)
        started = entry["updated_at"] - 60

        def shown(**changes: Any) -> tuple[Any, Any, Any]:
            store.set(entry["id"], {**entry, "step": "images", "step_started_at": started, "total": 1500, **changes})
            (job,) = listed(trays)
            return job["fraction"], job["text"], job["left"]

        assert shown(done=0) == (0.0, "images 0 of 1,500", None)
        assert shown(done=300) == (0.2, "images 300 of 1,500", "4 min")
        assert shown(done=1500) == (1.0, "images 1,500 of 1,500", "1 s")
        assert shown(total=0) == (None, "starting", None)
        # As an earlier version listed it.
        assert shown(done=300, step_started_at=None)[2] is None

    def test_each_kind_of_step_has_its_own_speed(self, trays: fo.Dataset) -> None:
        listing = jobs.Listing(context(trays), "learn", "Learn")
        listing.open()

        def began() -> float:
            (job,) = jobs.running_jobs(context(trays))
            assert job.step_started_at is not None
            return job.step_started_at

        listing.update(Progress(0, 4, "references"))
        first = began()
        listing.update(Progress(3, 4, "references"))
        assert began() == first
        listing.update(Progress(0, 9, "images"))
        assert began() > first
        listing.close()


class TestOutcome:
    def test_of_a_job_that_has_not_ended(self, dataset: fo.Dataset) -> None:
        assert background.outcome(context(dataset), "7f") is None

    def test_of_another_dataset(self, make_dataset: Callable[..., fo.Dataset]) -> None:
        one, other = make_dataset(), make_dataset()
        ctx = context(one)
        background.keep_outcome(ctx, "7f", [ctx.ops.notify("Done.", variant="success")])
        assert background.outcome(ctx, "7f") == [("notify", {"message": "Done.", "variant": "success"})]
        assert background.outcome(context(other), "7f") is None

    def test_trouble_with_it_is_logged(self, dataset: fo.Dataset, caplog: pytest.LogCaptureFixture) -> None:
        def messages() -> Iterator[Any]:
            raise RuntimeError("no server")
            yield

        with caplog.at_level(logging.ERROR, background.__name__):
            background.keep_outcome(context(dataset), "7f", messages())
        assert "The end of the job 7f cannot be told in the App" in caplog.text
        assert background.outcome(context(dataset), "7f") is None


def test_starting_without_a_panel(trays: fo.Dataset) -> None:
    with pytest.raises(DatasetError, match=r"^Model must be one of 'demo', "):
        background.start(context(trays), uri("build_index"), {"model": "huge"})
    job_id = background.start(context(trays), uri("build_index"), {"model": "demo"})
    assert watch_to_the_end(trays, job_id).data["index"]["num_indexed"] == 4
