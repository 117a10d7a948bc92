"""What is found before a run starts: everything that is missing in one message, and what there is to say of the rest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from refseg.cli import main
from refseg.errors import BenchmarkError, ModelError, UnknownModelError
from refseg.images.pixels import PixelSettings
from refseg.index.space import bytes_per_image
from refseg.models.presets import get_preset
from refseg.published import checking
from refseg.published.datasets import KnownDataset
from refseg.published.job import BenchmarkJob, Plan
from refseg.published.planning import describe_plan, make_plan
from tests.published import trees


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    trees.write_coco_2017(folder)
    return folder


@pytest.fixture
def own(coco: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(coco, tmp_path / "own"))


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Plan]:
    def make(data: Path, name: str = "coco-fsod", **chosen: Any) -> Plan:
        return make_plan(BenchmarkJob(name, data, tmp_path / "out", **{"model": "demo", **chosen}))

    return make


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


class TestRuns:
    def test_most_shots_first_seed_by_seed(self, coco: Path, plan: Callable[..., Plan]) -> None:
        made = plan(coco, shots=(1, 2), num_seeds=2, seed=5)
        assert [(run.shots, run.seed) for run in made.runs] == [(2, 5), (1, 5), (2, 6), (1, 6)]
        assert [run.tag for run in made.runs][:2] == ["novel-2shot-seed5", "novel-1shot-seed5"]
        assert len(made.runs[0].draw.annotations) == 40
        assert made.runs[1].draw.annotations != made.runs[3].draw.annotations

    def test_published_shots_by_default_and_what_is_short(self, coco: Path, plan: Callable[..., Plan]) -> None:
        made = plan(coco)
        assert [run.shots for run in made.runs] == [30, 10, 5, 3, 2, 1]
        assert any("fewer than 30 references" in note for note in made.notes)
        assert made.runs[0].draw.short
        text = describe_plan(made)
        assert "10 images, 20 classes, 6 runs of 1, 2, 3, 5, 10, 30 references a class, 1 seed, preset 'demo'" in text
        assert "  - novel: fewer than 30 references" in text

    def test_a_limit_is_spread_evenly(self, coco: Path, plan: Callable[..., Plan]) -> None:
        every = list(plan(coco, shots=(1,)).suite.parts[0].targets.images)
        made = plan(coco, shots=(1,), limit=4)
        assert list(made.suite.parts[0].targets.images) == [every[row] for row in (0, 3, 6, 9)]
        assert {entry["image_id"] for entry in made.suite.parts[0].targets.annotations} <= set(made.runs[0].part.targets.images)

    def test_classes(self, coco: Path, plan: Callable[..., Plan]) -> None:
        made = plan(coco, shots=(1,), classes=("dog", "cat"))
        assert made.runs[0].split.key == "chosen"
        assert {made.runs[0].part.targets.categories[key] for key in made.runs[0].split.category_ids} == {"dog", "cat"}

    def test_what_cannot_be_used_is_counted(self, own: Path, plan: Callable[..., Plan]) -> None:
        def break_one(content: dict[str, Any]) -> None:
            content["annotations"][0].update(bbox=None, segmentation=None)

        change(own / "annotations" / "instances_val2017.json", break_one)
        made = plan(own, shots=(1,))
        ((refused,),) = made.left_out.values()
        assert (refused.field, refused.value) == ("bbox", "None")
        text = describe_plan(made)
        assert f"1 annotation cannot be used and is left out: {refused}" in text
        assert "results.json will list all" in text
        with pytest.raises(BenchmarkError, match=r"one thing is missing:\n.*has neither a 'bbox' nor a 'segmentation'"):
            plan(own, shots=(1,), strict=True)

    def test_references_of_a_list_that_cannot_be_used_are_counted(
        self, coco: Path, plan: Callable[..., Plan], tmp_path: Path
    ) -> None:
        pool = json.loads((coco / "annotations" / "instances_train2017.json").read_text())
        entry = next(entry for entry in pool["annotations"] if entry["category_id"] == 17)
        good = {"image": entry["image_id"], "bbox": entry["bbox"]}
        (tmp_path / "cats.json").write_text(json.dumps({"cat": [good, {"image": 1, "bbox": [1, 2, 3]}]}))
        options: dict[str, Any] = {"classes": ("cat",), "references": str(tmp_path / "cats.json")}
        made = plan(coco, **options)
        assert [one.annotation for one in made.left_out[str(tmp_path / "cats.json")]] == ["entry 2 of the class 'cat'"]
        with pytest.raises(BenchmarkError, match="entry 2 of the class 'cat' has the bbox"):
            plan(coco, strict=True, **options)

    def test_nothing_is_written_over_what_is_read(self, plan: Callable[..., Plan], tmp_path: Path) -> None:
        paths = trees.write_custom(tmp_path / "custom")
        out = tmp_path / "out"
        (out / "runs").mkdir(parents=True)
        for place in (out / "results.json", out / "runs" / "mine.json"):
            place.write_bytes(paths.targets.read_bytes())
            with pytest.raises(BenchmarkError, match=f"{place} would be written over"):
                plan(paths.images, "custom", references=str(paths.references), targets=place)
            with pytest.raises(BenchmarkError, match=f"{place} would be written over"):
                plan(paths.images, "custom", references=str(place), targets=paths.targets)
        for folder in (out / "pictures", tmp_path / "out" / "pictures" / "deep"):
            folder.mkdir()
            for image in paths.images.iterdir():
                (folder / image.name).write_bytes(image.read_bytes())
            with pytest.raises(BenchmarkError, match="lies where pictures or results go"):
                plan(folder, "custom", references=str(paths.references), targets=paths.targets)

    def test_only_files_of_their_kind_are_replaced(self, coco: Path, plan: Callable[..., Plan], tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        for name in ("results.json", "shots.png"):
            (tmp_path / "out" / name).write_text("notes")
        with pytest.raises(
            BenchmarkError, match=r"(?s)results.json exists and is not a JSON file.*shots.png exists and is not a"
        ):
            plan(coco, shots=(1,))

    def test_an_unknown_name(self, coco: Path, plan: Callable[..., Plan]) -> None:
        with pytest.raises(BenchmarkError, match=r"There is no benchmark 'coco': its name is one of coco-fsod, .*, custom"):
            plan(coco, "coco")

    def test_downloads_are_said(
        self, coco: Path, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
        made = plan(coco, shots=(1,), model="tiny")
        assert len(made.downloads) == 2
        assert "156 MB are to be downloaded" in describe_plan(made)
        assert made.index_bytes == 10 * bytes_per_image(get_preset("tiny"))

    def test_given_references(self, coco: Path, plan: Callable[..., Plan], tmp_path: Path) -> None:
        pool = json.loads((coco / "annotations" / "instances_train2017.json").read_text())
        names = {category["id"]: category["name"] for category in pool["categories"]}
        by_class: dict[str, list[Any]] = {}
        for entry in pool["annotations"]:
            if not entry["iscrowd"]:
                name = f"{entry['image_id']:012d}.jpg"
                by_class.setdefault(names[entry["category_id"]], []).append({"image": name, "bbox": entry["bbox"]})
        for shots in (1, 2):
            listed = {name: entries[:shots] for name, entries in by_class.items()}
            (tmp_path / f"{shots}.json").write_text(json.dumps(listed))
        made = plan(coco, shots=(1, 2), num_seeds=5, references=str(tmp_path / "{shots}.json"))
        assert [(run.shots, run.seed) for run in made.runs] == [(2, 33), (1, 33)]
        assert all("segmentation" in entry for entry in made.runs[0].draw.annotations)
        assert "more seeds would change nothing" in made.notes[0]
        with pytest.raises(BenchmarkError, match=r"There is no COCO file at .*7\.json"):
            plan(coco, shots=(7,), references=str(tmp_path / "{shots}.json"))

    def test_custom_draws_where_a_number_is_asked_for(self, plan: Callable[..., Plan], tmp_path: Path) -> None:
        paths = trees.write_custom(tmp_path / "custom")
        files = {"references": str(paths.references), "targets": paths.targets}
        every = plan(paths.images, "custom", **files)
        assert [(run.shots, run.tag) for run in every.runs] == [(None, "all-all-seed33")] or every.runs[0].shots is None
        assert plan(paths.images, "custom", classes=("all",), **files).runs[0].split == every.runs[0].split
        drawn = plan(paths.images, "custom", shots=(1,), num_seeds=3, **files)
        assert [run.seed for run in drawn.runs] == [33, 34, 35]
        assert all(len(run.draw.annotations) == len(run.split.category_ids) for run in drawn.runs)


class TestMissing:
    def test_all_at_once(self, own: Path, plan: Callable[..., Plan], tmp_path: Path) -> None:
        (own / "annotations" / "instances_train2017.json").unlink()
        next((own / "val2017").iterdir()).unlink()
        (tmp_path / "file").write_text("")
        job = BenchmarkJob("coco-fsod", own, tmp_path / "file", "tiny", sam2_path=tmp_path / "sam2.pt", dinov2_path=tmp_path)
        with pytest.raises(BenchmarkError) as caught:
            make_plan(job)
        text = str(caught.value)
        assert "cannot start, 5 things are missing" in text
        for words in ("instances_train2017.json", "1 of the 10 target images", "is a file", "sam2.pt", "lacks config.json"):
            assert words in text
        assert len(text.splitlines()) == 6

    def test_no_folder(self, plan: Callable[..., Plan], tmp_path: Path) -> None:
        with pytest.raises(BenchmarkError, match=r"one thing is missing:\n  - There is no folder .*nowhere"):
            plan(tmp_path / "nowhere")

    def test_a_class_without_references(self, own: Path, plan: Callable[..., Plan]) -> None:
        def drop_dogs(content: dict[str, Any]) -> None:
            content["annotations"] = [entry for entry in content["annotations"] if entry["category_id"] != 18]

        change(own / "annotations" / "instances_train2017.json", drop_dogs)
        with pytest.raises(BenchmarkError, match="novel: no object can serve as a reference for dog"):
            plan(own, shots=(1,))

    def test_an_image_of_a_reference(self, own: Path, plan: Callable[..., Plan]) -> None:
        drawn = plan(own, shots=(1,)).runs[0]
        name = drawn.pool.images[drawn.draw.annotations[0]["image_id"]].file_name
        (own / name).unlink()
        with pytest.raises(BenchmarkError, match=rf"Images of references are not in .* \(1 of them\): {name}"):
            plan(own, shots=(1,))

    def test_disk(self, coco: Path, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checking, "free_bytes", lambda folder: 1)
        with pytest.raises(BenchmarkError, match=r"has 1 byte left, and .* may take .* more: free some") as caught:
            plan(coco, shots=(1,))
        assert "the candidate index" in str(caught.value)
        assert "the results" in str(caught.value)
        assert plan(coco, shots=(1,), insist=True).index_bytes > 0

    @pytest.mark.parametrize("chosen", [{"shots": (0,)}, {"num_seeds": 0}, {"limit": -1}])
    def test_numbers(self, coco: Path, plan: Callable[..., Plan], chosen: dict[str, Any]) -> None:
        with pytest.raises(BenchmarkError, match="must be 1 or more"):
            plan(coco, **chosen)

    def test_models(self, coco: Path, plan: Callable[..., Plan]) -> None:
        with pytest.raises(UnknownModelError):
            plan(coco, model="huge")
        with pytest.raises(ModelError):
            plan(coco, device="cuda:99")

    def test_shots_that_a_set_has_not(self, plan: Callable[..., Plan], tmp_path: Path) -> None:
        trees.write_cd_fsod(tmp_path / "cd")
        with pytest.raises(BenchmarkError, match="FISH has references for 1, 5, 10 shots, not for 2"):
            plan(tmp_path / "cd", "cd-fsod", shots=(2,), only=("FISH",))

    def test_folds(self, plan: Callable[..., Plan], tmp_path: Path) -> None:
        trees.write_coco_2014(tmp_path / "2014")
        made = plan(tmp_path / "2014", "coco-20i", shots=(1,), only=("fold0",), limit=6)
        (run,) = made.runs
        assert len(run.episodes) == 6
        assert set(run.part.targets.images) == {episode.query for episode in run.episodes}
        assert "not asked for, because they are in fewer than 2 images: parking meter" in made.notes[0]
        with pytest.raises(BenchmarkError, match="at least one class"):
            plan(tmp_path / "2014", "coco-20i", shots=(50,), only=("fold0",))

    def test_disk_that_is_filled_already_is_not_asked_for_again(
        self, coco: Path, plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(checking, "free_bytes", lambda folder: 1)
        monkeypatch.setattr(KnownDataset, "index_bytes", lambda self, model: 10**9)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "kept").write_bytes(bytes(2_000_000))
        assert plan(coco, shots=(1,)).index_bytes > 0

    def test_a_folder_may_be_named_through_a_link(self, coco: Path, plan: Callable[..., Plan], tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(coco)
        assert plan(tmp_path / "link", shots=(1,)).suite.folder == plan(coco, shots=(1,)).suite.folder

    def test_command_prints_a_line_for_each(self, own: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        shutil.rmtree(own / "annotations")
        assert main(["benchmark", "coco-fsod", "--data", str(own), "--model", "demo", "--out", str(tmp_path / "out")]) == 2
        lines = capsys.readouterr().err.splitlines()[1:]
        assert lines[0] == "refseg: error: The benchmark 'coco-fsod' cannot start, 2 things are missing:"
        assert [line[:4] for line in lines[1:]] == ["  - ", "  - "]
        assert not (tmp_path / "out").exists()

    def test_check_only(self, coco: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        arguments = ["benchmark", "coco-fsod", "--data", str(coco), "--model", "demo", "--out", str(tmp_path / "out")]
        assert main([*arguments, "--shots", "2,1", "--check"]) == 0
        assert "2 runs of 1, 2 references a class" in capsys.readouterr().out
        assert not (tmp_path / "out").exists()


class TestPixels:
    @pytest.fixture
    def deep(self, tmp_path: Path) -> trees.CustomPaths:
        return trees.as_tiffs(trees.write_custom(tmp_path / "own"), deep=True)

    @pytest.fixture
    def plan_of(self, plan: Callable[..., Plan], deep: trees.CustomPaths) -> Callable[..., Plan]:
        return lambda **chosen: plan(deep.images, "custom", references=str(deep.references), targets=deep.targets, **chosen)

    def test_targets_and_references_are_looked_at_together(self, plan_of: Callable[..., Plan], deep: trees.CustomPaths) -> None:
        assert plan_of().pixels == {"": PixelSettings((0, 4095))}
        bright = np.full((240, 320, 5), 60000, np.uint16)
        tifffile.imwrite(deep.images / "shots_0.tif", bright, photometric="minisblack", planarconfig="contig")
        made = plan_of(channels=(4, 2, 0))
        assert made.pixels == {"": PixelSettings((0, 65535), (4, 2, 0))}
        assert "  - Images are read with pixel_range=(0, 65535), channels=(4, 2, 0)." in describe_plan(made).splitlines()
        # What is drawn does not count: all draws share one index.
        assert plan_of(shots=(1,), num_seeds=2).pixels == {"": PixelSettings((0, 65535))}

    def test_what_is_given_counts(self, plan_of: Callable[..., Plan]) -> None:
        assert plan_of(pixel_range=(100, 900)).pixels == {"": PixelSettings((100, 900))}

    def test_eight_bits_need_nothing(self, coco: Path, plan: Callable[..., Plan]) -> None:
        made = plan(coco)
        assert all(pixels.is_plain for pixels in made.pixels.values())
        assert "Images are read with" not in describe_plan(made)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--pixel-range", "5", "5"], "two numbers"),
            (["--channels", "0", "1"], "one or three bands"),
            (["--channels", "-1"], "whole number"),
            (["--pixel-range", "1"], "expected 2 arguments"),
        ],
    )
    @pytest.mark.parametrize("name", ["custom", "coco-fsod", "lvis", "voc-fsod", "cd-fsod"])
    def test_settings_that_cannot_be(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, arguments: list[str], words: str
    ) -> None:
        own = ["--references", "r.json", "--targets", "t.json"] if name == "custom" else []
        out = ["--out", str(tmp_path / "out")]
        assert main(["benchmark", name, "--data", str(tmp_path), *own, *out, "--model", "demo", *arguments]) == 2
        assert words in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("name", ["toy", "coco-20i"])
    def test_benchmarks_without_files_of_ones_own_do_not_ask(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
    ) -> None:
        assert main(["benchmark", name, "--data", str(tmp_path), "--pixel-range", "0", "1"]) == 2
        assert "unrecognized arguments: --pixel-range" in capsys.readouterr().err
