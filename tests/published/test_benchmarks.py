"""Each benchmark's command on a small tree in its own format, with the demo preset; figures against pycocotools alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from refseg.cli import main
from refseg.published import running
from refseg.published.job import BenchmarkJob
from refseg.published.planning import make_plan
from refseg.published.running import BenchmarkReport, iter_benchmark, run_benchmark
from tests.published import trees

pytestmark = pytest.mark.slow

Bench = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("benchmarks")
    yield folder
    for name in [name for name in fo.list_datasets() if name.startswith("refseg-")]:
        fo.delete_dataset(name)


@pytest.fixture(scope="module")
def bench(place: Path) -> Bench:
    """Runs a command and returns what its results.json holds, with the folder it lies in."""

    def run(name: str, tree: str, *arguments: str, out: str = "") -> dict[str, Any]:
        data = place / tree
        if not data.exists():
            getattr(trees, f"write_{tree}")(data)
        target = place / (out or f"out-{name}")
        assert (
            main(["benchmark", name, "--data", str(data), "--model", "demo", "--quiet", "--out", str(target), *arguments]) == 0
        )
        results: dict[str, Any] = json.loads((target / "results.json").read_text())
        return {**results, "out": target}

    return run


def pycocotools_alone(truth: Path, found: Path, kind: str, images: list[Any] | None = None, category: int | None = None) -> Any:
    """COCO's own evaluation of two files, without a line of ours."""
    with redirect_stdout(StringIO()):
        coco = COCO(str(truth))
        evaluation = COCOeval(coco, coco.loadRes(str(found)), kind)
        if category is not None:
            evaluation.params.catIds, evaluation.params.imgIds = [category], images
            evaluation.params.maxDets = [1, 10, 300]
        evaluation.evaluate()
        evaluation.accumulate()
        if category is None:
            evaluation.summarize()
    return evaluation


def files_of(results: dict[str, Any], run: dict[str, Any]) -> tuple[Path, Path]:
    return results["out"] / run["ground_truth"], results["out"] / run["detections"]


@pytest.fixture(scope="module")
def results(bench: Bench) -> dict[str, Any]:
    return bench("coco-fsod", "coco_2017", "--shots", "1,2", "--seeds", "2")


@pytest.mark.thorough
class TestCocoFsod:
    def test_figures_are_those_of_pycocotools(self, results: dict[str, Any]) -> None:
        assert [(run["shots"], run["seed"]) for run in results["runs"]] == [(2, 33), (1, 33), (2, 34), (1, 34)]
        for run in results["runs"]:
            for kind, name in (("bbox", "box"), ("segm", "mask")):
                stats = pycocotools_alone(*files_of(results, run), kind).stats
                assert run["figures"][f"{name} AP"] == pytest.approx(stats[0], abs=1e-12)
                assert run["figures"][f"{name} AP50"] == pytest.approx(stats[1], abs=1e-12)
        assert results["runs"][0]["figures"]["mask AP"] > 0.2

    def test_more_shots_share_the_first(self, results: dict[str, Any]) -> None:
        two, one = results["runs"][:2]
        assert set(one["references"].values()) == {1}
        assert set(two["references"].values()) == {2}
        assert one["seconds"]["prototypes"] < two["seconds"]["prototypes"]

    def test_table_has_the_published_row_beside(self, results: dict[str, Any]) -> None:
        table = (results["out"] / "table.md").read_text()
        assert "24.5 ± 1.5 | 29.5 ± 2.0" in table
        assert "preset demo" in table

    def test_says_what_it_was_made_with(self, results: dict[str, Any]) -> None:
        assert {"refseg", "torch", "sam2", "transformers", "fiftyone", "pycocotools"} <= results["versions"].keys()
        assert set(results["revisions"]) == {"sam2", "dinov2"}
        assert results["machine"]["cores"] >= 1
        assert results["seconds"]["matching"] > 0
        assert results["settings"]["seeds"] == [33, 34]

    def test_dataset_can_be_opened(self, results: dict[str, Any]) -> None:
        dataset = fo.load_dataset("refseg-coco-fsod")
        targets = dataset.match_tags("target")
        assert len(targets) == results["num_images"] == 10
        assert targets.count("predictions.detections") > 0
        assert min(targets.values("predictions.detections.confidence", unwind=True)) >= 0.7
        assert dataset.count("references.detections") == sum(results["runs"][0]["references"].values())
        truth = json.loads(files_of(results, results["runs"][0])[0].read_text())
        assert targets.count("ground_truth.detections") >= len(truth["annotations"])
        assert any(targets.values("ground_truth.detections.iscrowd", unwind=True))

    def test_pictures(self, results: dict[str, Any]) -> None:
        for name in ("pictures/novel/best_and_worst.png", "pictures/novel/confused.png", "shots.png"):
            with Image.open(results["out"] / name) as picture:
                assert min(picture.size) > 200
                assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 20

    def test_again_runs_nothing(self, results: dict[str, Any], bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(running, "match_images", None)
        monkeypatch.setattr(running, "iter_build_prototypes", None)
        again = bench("coco-fsod", "coco_2017", "--shots", "1,2", "--seeds", "2")
        assert again["runs"] == results["runs"]
        assert again["seconds"]["matching"] == results["seconds"]["matching"]

    def test_goes_on_after_an_interruption(self, results: dict[str, Any], place: Path, tmp_path: Path) -> None:
        job = BenchmarkJob("coco-fsod", place / "coco_2017", tmp_path, model="demo", shots=(1, 2), num_seeds=2)
        work = iter_benchmark(make_plan(job))
        for step in work:
            if step.label.startswith("run 3/4"):
                assert "s left in all) novel 2 shots, seed 34: " in step.label
                break
        work.close()
        assert len(list((tmp_path / "runs").glob("*.json"))) == 2
        assert not (tmp_path / "results.json").exists()
        stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*.json")}
        report = run_benchmark(job, progress=False)
        assert [run["figures"] for run in report.results["runs"]] == [run["figures"] for run in results["runs"]]
        assert all((tmp_path / "runs" / name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
        # The index of the first benchmark was used again.
        assert report.results["datasets"]["refseg-coco-fsod"]["num_added"] == 0

    def test_a_run_of_other_references_is_not_taken_for_this(
        self, results: dict[str, Any], place: Path, tmp_path: Path
    ) -> None:
        pool = json.loads((place / "coco_2017" / "annotations" / "instances_train2017.json").read_text())
        given = {}
        for category in pool["categories"]:
            own = [entry for entry in pool["annotations"] if entry["category_id"] == category["id"] and not entry["iscrowd"]]
            if own:
                given[category["name"]] = [{"image": f"{own[0]['image_id']:012d}.jpg", "bbox": own[0]["bbox"]}]
        file = tmp_path / "seed33.json"
        file.write_text(json.dumps(given))
        job = BenchmarkJob(
            "coco-fsod",
            place / "coco_2017",
            tmp_path,
            "demo",
            (1,),
            num_seeds=3,
            limit=4,
            references=str(tmp_path / "seed33.json"),
        )
        report = run_benchmark(job, progress=False)
        (run,) = report.results["runs"]
        assert run["digest"] != results["runs"][1]["digest"]
        assert report.results["num_images"] == 4
        assert "one is run" in report.results["notes"][0]
        assert "--limit 4" in str(report)

    def test_report_joins(self, results: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = str(results["out"])
        assert main(["benchmark", "report", folder, folder, "--out", str(tmp_path)]) == 0
        assert capsys.readouterr().out.count("29.5 ± 2.0") == 1
        assert (tmp_path / "report.png").stat().st_size > 5000
        (tmp_path / "report.png").write_text("notes")
        assert main(["benchmark", "report", folder, "--out", str(tmp_path)]) == 2
        assert "report.png exists and is not a PNG" in capsys.readouterr().err
        assert "29.5 ± 2.0" in (tmp_path / "report.md").read_text()
        assert main(["benchmark", "report", str(tmp_path)]) == 2
        assert "no results of a benchmark" in capsys.readouterr().err


@pytest.mark.thorough
def test_lvis(bench: Bench) -> None:
    results = bench("lvis", "lvis", "--shots", "2")
    (run,) = results["runs"]
    (file,) = Path(results["out"].parent / "lvis").rglob("lvis_v1_minival.json")
    listed = json.loads(file.read_text())
    truth, found = files_of(results, run)
    compared = 0
    for category in listed["categories"]:
        if any(category["id"] in image["not_exhaustive_category_ids"] for image in listed["images"]):
            continue
        marked = {entry["image_id"] for entry in listed["annotations"] if entry["category_id"] == category["id"]}
        marked |= {image["id"] for image in listed["images"] if category["id"] in image["neg_category_ids"]}
        precision = pycocotools_alone(truth, found, "bbox", sorted(marked), category["id"]).eval["precision"][:, :, 0, 0, -1]
        if (precision > -1).any():
            assert run["per_class"][category["name"]]["box AP"] == pytest.approx(precision[precision > -1].mean(), abs=1e-12)
            compared += 1
    assert compared >= 2
    groups = [run["figures"][f"box AP{group}"] for group in "rcf"]
    assert run["figures"]["box AP"] is not None
    assert any(value is not None for value in groups)


@pytest.mark.thorough
def test_voc_fsod(bench: Bench) -> None:
    results = bench("voc-fsod", "voc", "--limit", "6", "--shots", "1", "--only", "split1,split3")
    assert [run["split"] for run in results["runs"]] == ["split1", "split3"]
    for run in results["runs"]:
        truth, found = files_of(results, run)
        content = json.loads(truth.read_text())
        if any(entry.get("difficult") for entry in content["annotations"]):
            continue
        stats = pycocotools_alone(truth, found, "bbox").stats
        assert run["figures"]["box AP50 (COCO)"] == pytest.approx(stats[1], abs=1e-12)
        assert run["figures"]["box AP"] == pytest.approx(stats[0], abs=1e-12)
    dataset = fo.load_dataset("refseg-voc-fsod")
    assert {"predictions_split1", "predictions_split3", "references_split1"} <= dataset.get_field_schema().keys()
    # One index for all splits.
    assert results["datasets"]["refseg-voc-fsod"]["num_images"] == results["num_images"]


@pytest.mark.thorough
def test_cd_fsod(bench: Bench) -> None:
    results = bench("cd-fsod", "cd_fsod", "--shots", "1", "--limit", "2")
    assert [run["part"] for run in results["runs"]] == ["ArTaxOr", "clipart1k", "DIOR", "FISH", "NEU-DET", "UODD"]
    for run in results["runs"]:
        stats = pycocotools_alone(*files_of(results, run), "bbox").stats
        assert run["figures"]["box AP"] == pytest.approx(stats[0], abs=1e-12)
        assert not [name for name in run["figures"] if name.startswith("mask")]
    average = next(row for row in results["summary"] if row["part"] == "average")
    assert average["mean"] == pytest.approx(np.mean([run["figures"]["box AP"] for run in results["runs"]]))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.thorough
def test_coco_20i(bench: Bench) -> None:
    results = bench("coco-20i", "coco_2014", "--shots", "1", "--only", "fold0,fold2", "--limit", "4")
    for run in results["runs"]:
        truth, answers = (json.loads(path.read_text()) for path in files_of(results, run))
        sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
        sums: dict[int, list[int]] = {}
        for answer in answers:
            shapes = [
                entry["segmentation"]
                for entry in truth["annotations"]
                if (entry["image_id"], entry["category_id"]) == (answer["image_id"], answer["category_id"])
            ]
            codes = [code for shape in shapes for code in _codes(shape, sizes[answer["image_id"]])]
            mask = mask_utils.decode(mask_utils.merge(codes)).astype(bool)
            own = mask_utils.decode(answer["segmentation"]).astype(bool)
            both = sums.setdefault(answer["category_id"], [0, 0])
            both[0] += int((mask & own).sum())
            both[1] += int((mask | own).sum())
        expected = np.mean([intersection / union for intersection, union in sums.values()])
        assert run["figures"]["mIoU"] == pytest.approx(expected, abs=1e-12)
        assert len(answers) == run["num_episodes"] == 4
    dataset = fo.load_dataset("refseg-coco-20i")
    assert dataset.mask_targets["predictions_fold0"][1] == "person"
    assert sum(mask is not None for mask in dataset.values("predictions_fold0.mask")) > 0


def _codes(shape: Any, image_hw: tuple[int, int]) -> list[Any]:
    found = mask_utils.frPyObjects(shape, *image_hw)
    return found if isinstance(found, list) else [found]


@pytest.mark.thorough
def test_toy(bench: Bench) -> None:
    results = bench("toy", "toy", "--limit", "5")
    (run,) = results["runs"]
    assert run["references"] == {"bird": 1, "boat": 1}
    stats = pycocotools_alone(*files_of(results, run), "segm").stats
    assert run["figures"]["mask AP"] == pytest.approx(stats[0], abs=1e-12)
    assert "45.8" in (results["out"] / "table.md").read_text()


@pytest.mark.thorough
class TestWhatFiguresDependOn:
    """The same command again, after something has changed: nothing stale is answered, and nothing is lost."""

    @pytest.fixture
    def paths(self, tmp_path: Path) -> trees.CustomPaths:
        return trees.write_custom(tmp_path / "own")

    @pytest.fixture
    def call(self, paths: trees.CustomPaths, tmp_path: Path) -> Callable[..., dict[str, Any]]:
        def run(**chosen: Any) -> dict[str, Any]:
            files = {"references": str(paths.references), "targets": paths.targets}
            return run_benchmark(
                BenchmarkJob("custom", paths.images, tmp_path / "out", "demo", **files, **chosen), progress=False
            ).results

        yield run
        for name in [name for name in fo.list_datasets() if name.startswith("refseg-custom")]:
            fo.delete_dataset(name)

    def test_annotations_references_images_and_settings(
        self, call: Callable[..., dict[str, Any]], paths: trees.CustomPaths, tmp_path: Path
    ) -> None:
        first = call()["runs"][0]
        kept = (tmp_path / "out" / first["detections"]).read_bytes()
        content = json.loads(paths.targets.read_text())
        paths.targets.write_text(json.dumps({**content, "annotations": content["annotations"][::2]}))
        fewer = call()["runs"][0]
        assert fewer["figures"] != first["figures"]
        assert (tmp_path / "out" / fewer["detections"]).read_bytes() == kept
        paths.targets.write_text(json.dumps(content))
        assert call()["runs"][0] == first  # nothing was overwritten
        # The classes of the references change places: another answer, in the same process and folder.
        shown = json.loads(paths.references.read_text())
        names = [category["name"] for category in shown["categories"]]
        for category, name in zip(shown["categories"], [*names[1:], names[0]], strict=True):
            category["name"] = name
        paths.references.write_text(json.dumps(shown))
        swapped = call()["runs"][0]
        assert swapped["figures"]["box AP"] < first["figures"]["box AP"]
        few = call(limit=1)
        assert few["num_images"] == 1
        assert few["runs"][0]["digest"] not in (first["digest"], swapped["digest"])
        assert len(list((tmp_path / "out" / "runs").iterdir())) == 4
        for path in paths.images.glob("targets*"):
            Image.new("RGB", (320, 240), "gray").save(path)
        assert call()["runs"][0]["figures"]["box AP"] == 0

    def test_an_image_of_another_size_is_skipped_and_said(
        self, call: Callable[..., dict[str, Any]], paths: trees.CustomPaths
    ) -> None:
        content = json.loads(paths.targets.read_text())
        for image in content["images"]:
            image.update(height=240, width=320)
        paths.targets.write_text(json.dumps(content))
        path = paths.images / content["images"][0]["file_name"]
        with Image.open(path) as upright:
            upright.transpose(Image.Transpose.ROTATE_90).save(path)
        results = call()
        ((skipped, reason),) = results["skipped_images"]
        assert skipped == str(path)
        assert "is listed with 320×240 pixels" in reason
        assert results["runs"][0]["figures"]["mask AP"] is not None

    def test_what_is_left_out_and_what_seems_turned_is_said(
        self,
        call: Callable[..., dict[str, Any]],
        paths: trees.CustomPaths,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # One of the three objects lies where a turn by half hardly moves it.
        monkeypatch.setattr("refseg.coco.frames.MOST_AS_ANNOTATED", 0.4)
        content = json.loads(paths.targets.read_text())
        exif = Image.Exif()
        exif[0x0112] = 3
        for image in content["images"]:
            with Image.open(paths.images / image["file_name"]) as upright:
                upright.rotate(180).save(paths.images / image["file_name"], exif=exif, quality=95)
        height, width = trees.IMAGE_HW
        for entry in content["annotations"]:
            x, y, w, h = entry["bbox"]
            entry |= {"bbox": [width - x - w, height - y - h, w, h], "segmentation": None}
        content["annotations"].append({**content["annotations"][0], "id": 900, "iscrowd": "perhaps"})
        paths.targets.write_text(json.dumps(content))
        results = call()
        (hint,) = results["hints"]
        assert hint.endswith("Turn the annotations too, or remove the tag from the files.")
        assert "of 3 objects 1 are met as they are annotated, and 3 if they are turned" in hint
        written = json.loads((tmp_path / "out" / "results.json").read_text())
        ((refused,),) = written["left_out"].values()
        assert (refused["annotation"], refused["field"], refused["value"]) == ("900", "iscrowd", "'perhaps'")
        assert hint in str(BenchmarkReport(results, tmp_path / "out"))

    def test_references_of_no_use_find_nothing(self, call: Callable[..., dict[str, Any]], paths: trees.CustomPaths) -> None:
        content = json.loads(paths.references.read_text())
        for entry in content["annotations"]:
            entry.update(bbox=[1.0, 1.0, 0.2, 0.2], segmentation=None)
        paths.references.write_text(json.dumps(content))
        (run,) = call()["runs"]
        assert run["figures"]["box AP"] == 0
        assert set(run["short"].values()) == {0}
        assert run["skipped_references"][-1][0] == "all"


@pytest.mark.thorough
def test_custom_of_deep_pictures_of_many_bands(tmp_path: Path) -> None:
    """Read as they are meant they answer as the same pictures of eight bits do, else not; nothing is answered from before."""
    paths = trees.write_custom(tmp_path / "own")

    def run(own: trees.CustomPaths, *arguments: str) -> tuple[dict[str, Any], Any]:
        files = ["--data", str(own.images), "--references", str(own.references), "--targets", str(own.targets)]
        out = tmp_path / f"out-{own.images.name}"
        assert main(["benchmark", "custom", *files, "--model", "demo", "--quiet", "--out", str(out), *arguments]) == 0
        results: dict[str, Any] = json.loads((out / "results.json").read_text())
        return results, json.loads((out / results["runs"][0]["detections"]).read_text())

    try:
        eight, expected = run(trees.as_tiffs(paths, deep=False))
        assert (eight["settings"]["pixels"], len(expected) > 10) == ({"": None}, True)
        deep = trees.as_tiffs(paths, deep=True)
        meant = ("--pixel-range", "0", "4080", "--channels", "4", "2", "0")
        results, found = run(deep, *meant)
        assert results["settings"]["pixels"] == {"": [[0.0, 4080.0], [4, 2, 0]]}
        assert found == expected
        assert results["runs"][0]["figures"] == eight["runs"][0]["figures"]
        # Without a word the range is found, and no index or run of another one is taken for it.
        results, found = run(deep, *meant[3:])
        assert results["settings"]["pixels"] == {"": [[0.0, 4095.0], [4, 2, 0]]}
        assert results["runs"][0]["figures"]["box AP"] > 0
        results, found = run(deep, "--pixel-range", "0", "300000", *meant[3:])
        assert results["settings"]["pixels"] == {"": [[0.0, 300000.0], [4, 2, 0]]}
        assert found != expected
        assert run(deep, *meant)[1] == expected
        # Nor are the bands of an earlier run.
        results, found = run(deep, "--pixel-range", "0", "4080")
        assert results["settings"]["pixels"] == {"": [[0.0, 4080.0], None]}
        assert found != expected
        kept = tmp_path / "out-deep" / "results.json"
        before = kept.read_bytes()
        files = ["--data", str(deep.images), "--references", str(deep.references), "--targets", str(deep.targets)]
        asked = ["benchmark", "custom", *files, "--model", "demo", "--quiet", "--out", str(kept.parent), "--channels", "9"]
        assert main(asked) == 2
        assert kept.read_bytes() == before
        assert len(list((tmp_path / "out-deep" / "runs").iterdir())) == 4
    finally:
        for name in [name for name in fo.list_datasets() if name.startswith("refseg-custom")]:
            fo.delete_dataset(name)


@pytest.mark.thorough
def test_custom_in_processes(place: Path) -> None:
    paths = trees.write_custom(place / "custom")
    job = BenchmarkJob(
        "custom",
        paths.images,
        place / "out-custom",
        "demo",
        references=str(paths.references),
        targets=paths.targets,
        num_processes=2,
    )
    report = run_benchmark(job, progress=False)
    (run,) = report.results["runs"]
    truth, found = files_of({"out": place / "out-custom"}, run)
    assert run["figures"]["mask AP"] == pytest.approx(pycocotools_alone(truth, found, "segm").stats[0], abs=1e-12)
