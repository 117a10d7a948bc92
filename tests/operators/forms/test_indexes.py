"""What forms say about the index."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import pytest

from operators.forms.indexes import Coverage
from tests.operators.helpers import call, form_of, problems_of, uri
from tests.operators.indexed import no_lance, notice, opened, records
from tests.operators.test_register import HEAVY


class TestCoverage:
    """What forms say about the index."""

    @pytest.mark.parametrize(
        ("coverage", "words"),
        [
            (Coverage(1000, 1000, 0, 0.5), "All 1,000 images are indexed: segmenting takes seconds."),
            (Coverage(50_000, 50_000, 0, 0.5), "All 50,000 images are indexed: segmenting takes a few milliseconds each."),
            (Coverage(None, None, 0, None), "All images chosen are indexed: segmenting takes a few milliseconds each."),
            (Coverage(1, 1, 0, 0.5), "The image is indexed: segmenting takes seconds."),
            (Coverage(0, 0, 0, 0.5), "There are no images in it."),
            (Coverage(1000, 812, 188, 0.64), "812 of 1,000 images are indexed; the other 188 take about 2 min."),
            (Coverage(1000, 999, 1, 0.64), "999 of 1,000 images are indexed; the other 1 takes about 1 s."),
            (Coverage(1000, 812, 188, None), "812 of 1,000 images are indexed; the other 188 are computed once and kept."),
            (Coverage(1000, 0, 1000, None), "None of the 1,000 images is indexed yet: each is computed once and kept."),
            (
                Coverage(1000, 0, 1000, 9.0),
                "None of the 1,000 images is indexed yet: each is computed once and kept, about 2.5 h in all.",
            ),
            (Coverage(None, 0, 90, 9.0), "None of the images chosen is indexed yet: each is computed once and kept."),
            (Coverage(1, 0, 1, 9.0), "The image is not indexed yet: it is computed once and kept, about 9 s."),
            (Coverage(300, None, 188, 0.64), "Up to 188 of the 300 images are not indexed yet: 2 min at most."),
            (Coverage(None, None, 188, None), "Up to 188 of the images chosen are not indexed yet."),
        ],
    )
    def test_words(self, coverage: Coverage, words: str) -> None:
        assert coverage.describe_segment() == words

    @pytest.mark.usefixtures("true_candidates")
    @pytest.mark.parametrize("operator", ["segment", "segment_with_references", "build_index"])
    def test_whole_dataset(self, operator: str, with_prototypes: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        words = "None of the 4 images is indexed yet: each is computed once and kept."
        assert notice(with_prototypes, operator) == words
        call("build_index", with_prototypes.limit(3))
        assert notice(with_prototypes, operator).startswith("3 of 4 images are indexed; the other 1 takes about ")
        with monkeypatch.context() as without:
            no_lance(without)
            assert notice(with_prototypes, operator).startswith("3 of 4 images are indexed; the other 1 takes about ")
        call("build_index", with_prototypes)
        assert notice(with_prototypes, operator).startswith("All 4 images are indexed: ")

    def test_images_chosen(self, indexed: fo.Dataset) -> None:
        view = indexed.skip(2)
        assert notice(indexed, "segment", view=view).startswith("1 of 2 images are indexed; the other 1 takes about ")
        chosen = [indexed.last().id]
        text = notice(indexed, "segment", {"view_target": "SELECTED_SAMPLES"}, selected=chosen)
        assert text.startswith("The image is not indexed yet: it is computed once and kept, about ")
        patches = indexed.limit(2).to_patches("ground_truth")
        assert notice(indexed, "segment", view=patches) == "All 2 images are indexed: segmenting takes seconds."

    def test_images_chosen_before_an_index_was_used_here(self, indexed: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        no_lance(monkeypatch)
        assert notice(indexed, "segment", view=indexed.skip(2)).startswith("Up to 1 of the 2 images are not indexed yet: ")
        call("build_index", indexed)
        no_lance(monkeypatch)
        assert notice(indexed, "segment", view=indexed.skip(2)) == "All 2 images are indexed: segmenting takes seconds."

    def test_more_images_than_are_compared(self, indexed: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        kinds = type(foo.get_operator(uri("segment"))).resolve_input.__globals__
        loaded = sys.modules[kinds["coverage"].__module__]
        monkeypatch.setattr(loaded, "IMAGES_COMPARED", 1)
        assert notice(indexed, "segment", view=indexed.skip(2)).startswith("Up to 1 of the images chosen are not indexed yet: ")

    def test_forgotten_images_do_not_count(self, indexed: fo.Dataset) -> None:
        opened(indexed).index.forget([indexed.first().id])
        assert notice(indexed, "segment", view=indexed.limit(3)).startswith("2 of 3 images are indexed; the other 1 takes")

    def test_folder_that_is_gone_holds_nothing(self, indexed: fo.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
        shutil.rmtree(records(indexed)[0]["uri"])
        assert notice(indexed, "segment").startswith("None of the 4 images is indexed yet: each is computed once and kept, ")
        no_lance(monkeypatch)
        assert notice(indexed, "segment").startswith("None of the 4 images is indexed yet: each is computed once and kept, ")

    def test_table_that_cannot_be_read_is_taken_at_its_records_word(self, indexed: fo.Dataset) -> None:
        for path in Path(records(indexed)[0]["uri"]).glob("images.lance/data/*"):
            path.write_bytes(b"")
        assert notice(indexed, "segment").startswith("3 of 4 images are indexed; the other 1 takes about ")

    def test_prototypes_of_another_encoder(self, indexed: fo.Dataset) -> None:
        config = indexed.get_run_info("parts").config
        config.fingerprint = "another"
        indexed.update_run_config("parts", config)
        assert notice(indexed, "segment").startswith("None of the 4 images is indexed yet")

    def test_masks_that_an_earlier_version_did_not_clean(self, indexed: fo.Dataset) -> None:
        """The next run reads none of them."""
        key = records(indexed)[0]["key"]
        config = indexed.get_run_info(key).config
        del config.clean_masks
        indexed.update_run_config(key, config)
        assert notice(indexed, "segment").startswith("None of the 4 images is indexed yet")

    def test_clone_has_no_index_of_its_own(self, indexed: fo.Dataset) -> None:
        clone = indexed.clone()
        try:
            assert notice(clone, "segment").startswith("None of the 4 images is indexed yet")
            assert "index" in problems_of(form_of(clone, "delete_index"))
        finally:
            clone.delete()

    @pytest.mark.usefixtures("true_candidates")
    def test_slices_of_groups(
        self, make_dataset: Callable[..., fo.Dataset], parts: fo.Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset = make_dataset()
        dataset.add_group_field("group", default="left")
        samples = []
        for path in parts.values("filepath")[:2]:
            group = fo.Group()
            samples += [fo.Sample(path, group=group.element(name)) for name in ("left", "right")]
        dataset.add_samples(samples, progress=False)
        assert notice(dataset, "build_index", {"model": "demo"}).startswith("None of the 2 images is indexed yet")
        call("build_index", dataset, model="demo")
        assert notice(dataset, "build_index", {"model": "demo"}).startswith("All 2 images are indexed")
        assert notice(dataset, "build_index", {"model": "demo"}, group_slice="right").startswith("None of the 2 images")
        no_lance(monkeypatch)
        # The index holds as many images as there are groups, but each group has two.
        assert notice(dataset, "build_index", {"model": "demo"}, group_slice="right").startswith("Up to 2 of the 2 images")

    @pytest.mark.thorough
    def test_forms_load_nothing_heavy(self, indexed: fo.Dataset) -> None:
        names = ["segment", "segment_with_references", "build_index", "index_status", "delete_index", "find_similar"]
        code = (
            "import sys, fiftyone as fo\n"
            "from tests.operators.helpers import form_of\n"
            f"dataset = fo.load_dataset({indexed.name!r})\n"
            f"forms = [form_of(dataset, name, view=dataset.limit(2)) for name in {names!r}]\n"
            "assert all(forms) and not any('dataset_problem' in form for form in forms)\n"
            f"print([name for name in {HEAVY!r} if name in sys.modules])"
        )
        indexed.persistent = True
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().splitlines()[-1] == "[]"
