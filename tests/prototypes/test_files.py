"""Files of prototypes: all comes back, older files open, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from refseg.errors import PrototypeFileError
from refseg.masks.rle import encode_crop
from refseg.prototypes import files as prototype_files
from refseg.prototypes.prototypes import Prototypes
from refseg.prototypes.surroundings import Shapes, Surroundings
from tests.synthetic import assert_same, make_full, make_negatives, make_prototypes, seen_twice


class TestFile:
    def test_round_trip(self, tmp_path: Path) -> None:
        first = make_prototypes([0, 1, 1], classes=("a.b $", "⚙️"), skipped=(("x", "too thin"), ("y", "its mask is empty")))
        first.save(tmp_path / "deep" / "er" / "a.safetensors")
        again = Prototypes.load(str(tmp_path / "deep" / "er" / "a.safetensors"))
        assert_same(again, first)
        assert again.digests == ()
        assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["a.safetensors"]

    def test_of_real_references(self, built: Prototypes, tmp_path: Path) -> None:
        built.save(tmp_path / "a.safetensors")
        again = Prototypes.load(tmp_path / "a.safetensors")
        assert torch.equal(again.matrix, built.matrix)
        assert again.digests == built.digests
        assert len(set(again.digests)) == 6

    def test_of_negatives(self, tmp_path: Path) -> None:
        first = make_prototypes([0, 1, 1], negatives=make_negatives("a.b $", "nut", "⚙️"))
        first.save(tmp_path / "a.safetensors")
        again = Prototypes.load(tmp_path / "a.safetensors")
        assert_same(again, first)
        assert again.negatives is not None
        again.remove(["negative-50"]).save(tmp_path / "a.safetensors")
        left = Prototypes.load(tmp_path / "a.safetensors").negatives
        assert left is not None
        assert left.ids == ("negative-51", "negative-52")

    def test_of_version_2(self, tmp_path: Path) -> None:
        # As the version before negatives wrote it.
        about = (
            '{"version": 2, "classes": ["gear", "nut"], "reference_ids": ["label-0", "label-1", "label-2"], "model": "demo", '
            '"fingerprint": "f00", "skipped": [], "digests": ["a", "b", "c"]}'
        )
        expected = make_prototypes([0, 1, 1], digests=("a", "b", "c"))
        tensors = {"vectors": expected.vectors, "labels": expected.labels}
        save_file(tensors, tmp_path / "a.safetensors", metadata={"refseg_prototypes": about})
        found = Prototypes.load(tmp_path / "a.safetensors")
        assert_same(found, expected)
        assert found.digests == ("a", "b", "c")

    @pytest.mark.parametrize("listed", [{"names": ["a"]}, {"names": ["a"], "ids": ["x"], "digests": []}, ["a"], 3])
    def test_negatives_that_disagree(self, tmp_path: Path, listed: object) -> None:
        path = tmp_path / "a.safetensors"
        make_prototypes([0, 1], negatives=make_negatives("a")).save(path)
        with safe_open(str(path), framework="pt") as file:
            about = json.loads(file.metadata()["refseg_prototypes"])
        save_file(load_file(path), path, metadata={"refseg_prototypes": json.dumps({**about, "negatives": listed})})
        with pytest.raises(PrototypeFileError, match="is not a prototypes file"):
            Prototypes.load(path)

    def test_of_version_1(self, tmp_path: Path) -> None:
        # As release 0.1.0 wrote it.
        about = (
            '{"version": 1, "classes": ["gear", "nut"], "reference_ids": ["label-0", "label-1", "label-2"], "model": "demo", '
            '"fingerprint": "f00", "skipped": [["x", "too thin"]]}'
        )
        expected = make_prototypes([0, 1, 1], skipped=(("x", "too thin"),))
        tensors = {"vectors": expected.vectors, "labels": expected.labels}
        save_file(tensors, tmp_path / "a.safetensors", metadata={"refseg_prototypes": about})
        found = Prototypes.load(tmp_path / "a.safetensors")
        assert_same(found, expected)
        assert found.digests == ()

    @pytest.mark.parametrize(("key", "value"), [("digests", ["a"]), ("reference_ids", ["x"]), ("classes", ["a", "b", "c"])])
    def test_parts_that_disagree(self, tmp_path: Path, key: str, value: list[str]) -> None:
        path = tmp_path / "a.safetensors"
        make_prototypes([0, 1]).save(path)
        with safe_open(str(path), framework="pt") as file:
            about = json.loads(file.metadata()["refseg_prototypes"])
        save_file(load_file(path), path, metadata={"refseg_prototypes": json.dumps({**about, key: value})})
        with pytest.raises(PrototypeFileError, match="is not a prototypes file"):
            Prototypes.load(path)

    def test_save_replaces(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        make_prototypes([0, 1]).save(path)
        make_prototypes([0, 1, 1]).save(path)
        assert Prototypes.load(path).shots == {"gear": 1, "nut": 2}

    def test_save_replaces_no_other_file(self, tmp_path: Path) -> None:
        photo, weights, link = (tmp_path / name for name in ("photo.png", "model.safetensors", "link"))
        photo.write_bytes(b"\x89PNG")
        save_file({"vectors": torch.zeros(2)}, weights)
        link.symlink_to(photo)
        before = photo.read_bytes(), weights.read_bytes()
        for path in (photo, weights, link):
            with pytest.raises(
                PrototypeFileError, match=f"{path.name} exists and is not a prototypes file, .*: name another file"
            ):
                make_prototypes([0, 1]).save(path)
        assert (photo.read_bytes(), weights.read_bytes()) == before

    def test_save_replaces_empty_files_and_those_of_newer_versions(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        path.touch()
        make_prototypes([0, 1]).save(path)
        save_file({"vectors": torch.zeros(2)}, path, metadata={"refseg_prototypes": json.dumps({"version": 99})})
        make_prototypes([0, 1, 1]).save(path)
        assert Prototypes.load(path).shots == {"gear": 1, "nut": 2}

    @pytest.mark.parametrize("name", ["folder", "file.txt/a.safetensors", "a" * 300, "a\0b", ""])
    def test_where_none_can_be_written(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "file.txt").write_text("x")
        with pytest.raises(PrototypeFileError, match=r"\.$|written to"):
            make_prototypes([0, 1]).save(f"{tmp_path}/{name}")
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["file.txt", "folder"]
        with pytest.raises(PrototypeFileError, match=r"written to '/dev/null': .* pipe or a device"):
            make_prototypes([0, 1]).save("/dev/null")

    def test_save_leaves_other_files_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a.safetensors.part").write_text("mine")
        monkeypatch.setenv("HOME", str(tmp_path))
        make_prototypes([0, 1]).save("~/a.safetensors")
        assert (tmp_path / "a.safetensors.part").read_text() == "mine"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "a.safetensors.part"]
        assert Prototypes.load("~/a.safetensors").classes == make_prototypes([0, 1]).classes

    def test_save_of_removed_rows(self, tmp_path: Path) -> None:
        make_prototypes([0, 1, 1]).remove(["label-1"]).save(tmp_path / "a.safetensors")
        assert Prototypes.load(tmp_path / "a.safetensors").reference_ids == ("label-0", "label-2")

    def test_interrupted_save_leaves_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "a.safetensors"
        make_prototypes([0, 1]).save(path)

        def full_disk(tensors: object, target: Path, **options: object) -> None:
            Path(target).write_bytes(b"half")
            raise OSError("No space left on device")

        monkeypatch.setattr(prototype_files, "save_file", full_disk)
        with pytest.raises(PrototypeFileError, match="No space"):
            make_prototypes([0, 1, 1]).save(path)
        assert Prototypes.load(path).shots == {"gear": 1, "nut": 1}

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(PrototypeFileError, match=r"There is no prototypes file at .*a\.safetensors"):
            Prototypes.load(tmp_path / "a.safetensors")

    @pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256)) * 8, b'{"classes": []}'])
    def test_garbage(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.safetensors").write_bytes(content)
        with pytest.raises(PrototypeFileError, match="is not a prototypes file written by RefSeg"):
            Prototypes.load(tmp_path / "a.safetensors")

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(PrototypeFileError):
            Prototypes.load(tmp_path)

    def test_truncated(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        make_prototypes([0, 1]).save(path)
        whole = path.read_bytes()
        for length in range(0, len(whole), 37):
            path.write_bytes(whole[:length])
            with pytest.raises(PrototypeFileError, match="is not a prototypes file"):
                Prototypes.load(path)

    def test_other_tensors(self, tmp_path: Path) -> None:
        save_file({"weight": torch.zeros(3)}, tmp_path / "a.safetensors")
        with pytest.raises(PrototypeFileError, match="is not a prototypes file"):
            Prototypes.load(tmp_path / "a.safetensors")

    @pytest.mark.parametrize("about", [[], 3, {"version": 1}, {"version": "new"}, {"version": 1, "classes": 3}])
    def test_odd_header(self, tmp_path: Path, about: object) -> None:
        tensors = {"vectors": torch.zeros(1, 2), "labels": torch.zeros(1, dtype=torch.int64)}
        save_file(tensors, tmp_path / "a.safetensors", metadata={"refseg_prototypes": json.dumps(about)})
        with pytest.raises(PrototypeFileError, match="is not a prototypes file"):
            Prototypes.load(tmp_path / "a.safetensors")

    def test_newer_version(self, tmp_path: Path) -> None:
        path = tmp_path / "a.safetensors"
        make_prototypes([0, 1]).save(path)
        save_file(load_file(path), path, metadata={"refseg_prototypes": json.dumps({"version": 7, "news": True})})
        with pytest.raises(PrototypeFileError, match=r"newer RefSeg \(file version 7, this one reads up to 6\): update"):
            Prototypes.load(path)


class TestEveryPart:
    def test_round_trip(self, tmp_path: Path) -> None:
        first = replace(make_full("aabbcc"), skipped=(("x", "too thin"),))
        first.save(tmp_path / "a.safetensors")
        again = Prototypes.load(tmp_path / "a.safetensors")
        assert_same(again, first)
        assert again.digests == first.digests
        assert again.background is not None
        assert again.background.dtype == torch.float16

    @pytest.mark.parametrize("name", ["negatives", "images", "background", "surroundings", "digests", "image_names"])
    def test_without_one(self, tmp_path: Path, name: str) -> None:
        first = replace(make_full("aabbcc"), **{name: () if name in ("images", "digests", "image_names") else None})
        first.save(tmp_path / "a.safetensors")
        again = Prototypes.load(tmp_path / "a.safetensors")
        assert_same(again, first)
        assert again.digests == first.digests

    def test_of_surroundings_without_a_candidate(self, tmp_path: Path) -> None:
        first = replace(make_full("aab"), surroundings=Surroundings(torch.zeros(0, 8).half(), (), ()))
        first.save(tmp_path / "a.safetensors")
        assert_same(Prototypes.load(tmp_path / "a.safetensors"), first)

    def test_of_version_3(self, tmp_path: Path) -> None:
        # As the version before images, backgrounds and surroundings wrote it.
        about = (
            '{"version": 3, "classes": ["gear", "nut"], "reference_ids": ["label-0", "label-1"], "model": "demo", '
            '"fingerprint": "f00", "skipped": [], "digests": ["a", "b"], '
            '"negatives": {"names": ["nut"], "ids": ["negative-50"], "digests": ["digest-50"]}}'
        )
        negatives = make_negatives("nut")
        expected = make_prototypes([0, 1], digests=("a", "b"), negatives=negatives)
        tensors = {"vectors": expected.vectors, "labels": expected.labels, "negatives": negatives.vectors}
        save_file(tensors, tmp_path / "a.safetensors", metadata={"refseg_prototypes": about})
        found = Prototypes.load(tmp_path / "a.safetensors")
        assert_same(found, expected)
        assert found.digests == ("a", "b")
        found.save(tmp_path / "b.safetensors")
        assert_same(Prototypes.load(tmp_path / "b.safetensors"), expected)

    @pytest.mark.parametrize(
        "changes",
        [
            {"images": ["a"]},
            {"images": 3},
            {"surroundings": {"images": ["a"], "shown": [""]}},
            {"surroundings": {"images": ["a"]}},
            {"surroundings": 3},
            {"negatives": {"names": ["a"], "ids": ["x"], "digests": ["d"], "images": ["a", "b"]}},
            {"classes": ["gear", "nut"]},
        ],
    )
    def test_header_that_does_not_fit(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        path = tmp_path / "a.safetensors"
        rewrite(make_full("aaa"), path, changes, {})
        with pytest.raises(PrototypeFileError, match=r"a\.safetensors is not a prototypes file"):
            Prototypes.load(path)

    @pytest.mark.parametrize(
        "changes",
        [
            {"surroundings": None},
            {"negatives": None},
            {"vectors": None},
            {"background": torch.zeros(2, 8, 8)},
            {"background": torch.zeros(3, 8, 9)},
            {"background": torch.tensor(1.0)},
            {"surroundings": torch.zeros(5, 9)},
            {"surroundings": torch.zeros(4, 8)},
            {"labels": torch.tensor([0, 1, 7])},
            {"vectors": torch.zeros(3, 9)},
        ],
        ids=str,
    )
    def test_tensors_that_do_not_fit(self, tmp_path: Path, changes: dict[str, torch.Tensor | None]) -> None:
        path = tmp_path / "a.safetensors"
        rewrite(make_full("aaa"), path, {}, {})
        assert len(Prototypes.load(path).reference_ids) == 3
        rewrite(make_full("aaa"), path, {}, changes)
        with pytest.raises(PrototypeFileError, match=r"a\.safetensors is not a prototypes file"):
            Prototypes.load(path)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("vectors", "Vectors of references hold a number of 'nut' in .*png \\(label-1\\) that is not finite"),
            ("background", "Backgrounds of references hold a number of 'nut' in .*png \\(label-1\\)"),
            ("looks", "Second looks of references hold a number of 'nut' in .*png \\(label-1\\)"),
            ("negatives", "Vectors of negatives hold a number of 'nut' \\(negative-.*\\) that is not finite"),
            ("surroundings", "Features of surroundings hold a number in row 1 that is not finite"),
            ("cohort", "Features of the cohort hold a number in row 1 that is not finite"),
            ("cohort_looks", "Second looks of the cohort hold a number in row 1 that is not finite"),
        ],
    )
    def test_numbers_that_are_none(self, tmp_path: Path, name: str, words: str, value: float) -> None:
        path = tmp_path / "a.safetensors"
        rewrite(seen_twice(make_full("aab")), path, {}, {})
        assert len(Prototypes.load(path).reference_ids) == 3
        tensor = load_file(path)[name]
        tensor[1, ..., 0] = value
        rewrite(seen_twice(make_full("aab")), path, {}, {name: tensor})
        with pytest.raises(PrototypeFileError, match=rf"a\.safetensors is not a prototypes file that can be used: {words}"):
            Prototypes.load(path)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"classes": ["gear", "gear"]}, "Two classes of the prototypes are named 'gear': join"),
            ({"classes": ["gear", " "]}, "A class of the prototypes has a blank name"),
            ({"classes": ["gear", 7]}, "'classes' must be a list of texts"),
            ({"classes": ["gear", None]}, "'classes' must be a list of texts"),
            ({"classes": "gn"}, "'classes' must be a list of texts"),
            ({"reference_ids": [1, 2, 3]}, "'reference_ids' must be a list of texts"),
            ({"image_names": "abc"}, "'image_names' must be a list of texts"),
            ({"images": "abc"}, "'images' must be a list of texts"),
            ({"digests": [1, 2, 3]}, "'digests' must be a list of texts"),
            ({"model": 3}, "model must be a text"),
        ],
    )
    def test_names_that_are_none(self, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
        path = tmp_path / "a.safetensors"
        rewrite(make_full("aab"), path, changes, {})
        with pytest.raises(PrototypeFileError, match=rf"a\.safetensors is not a prototypes file that can be used: {words}"):
            Prototypes.load(path)

    @pytest.mark.parametrize(
        "text",
        [
            "[" * 200_000,
            '{"version": ' + "[" * 100_000 + "]" * 100_000 + "}",
            '{"version": ' + "9" * 100_000 + "}",
            '{"version": NaN, "classes": Infinity}',
            '{"version": 4, "classes": ["gear", "nut"], "cohort": []}',
            '{"version": 4, "classes": {"gear": 1}}',
        ],
        ids=["open", "nested", "digits", "not finite", "cohort", "mapping"],
    )
    def test_json_that_none_writes(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "a.safetensors"
        make_full("aab").save(path)
        save_file(load_file(path), path, metadata={"refseg_prototypes": text})
        with pytest.raises(PrototypeFileError, match=r"a\.safetensors is not a prototypes file"):
            Prototypes.load(path)

    @pytest.mark.parametrize("about", [{"num_images": float("inf")}, {"num_images": 3, "shrinkage": float("nan")}, [], "x"])
    def test_a_cohort_that_is_none(self, tmp_path: Path, about: Any) -> None:
        path = tmp_path / "a.safetensors"
        rewrite(seen_twice(make_full("aab")), path, {"cohort": about}, {})
        with pytest.raises(PrototypeFileError, match=r"a\.safetensors is not a prototypes file"):
            Prototypes.load(path)

    @pytest.mark.parametrize("change", ["codes", "short", "lengths", "sides"])
    def test_masks_of_surroundings_that_are_damaged(self, tmp_path: Path, change: str) -> None:
        path = tmp_path / "a.safetensors"
        mask = torch.zeros(4, 4, dtype=torch.bool)
        mask[1:3, 1:3] = True
        code = encode_crop(mask.numpy(), (0, 0), (4, 4))["counts"]
        shapes = Shapes((code, code), torch.tensor([[1, 1, 2, 2]] * 2), torch.ones(2), torch.tensor([4, 4]))
        around = Surroundings(torch.ones(2, 8).half(), ("i", "j"), ("", ""), (), shapes)
        first = replace(make_full("aab"), surroundings=around)
        first.save(path)
        assert Prototypes.load(path).surroundings.shapes.codes == (code, code)
        tensors = load_file(path)
        changed = {
            "codes": {"surroundings_codes": torch.full_like(tensors["surroundings_codes"], 200)},
            "short": {"surroundings_codes": tensors["surroundings_codes"][:-1].clone()},
            "lengths": {"surroundings_lengths": torch.tensor([-3, 100])},
            "sides": {"surroundings_sides": torch.tensor([4, 1 << 40])},
        }
        rewrite(first, path, {}, changed[change])
        with pytest.raises(PrototypeFileError, match="A mask of the surroundings is damaged: calibrate the prototypes again"):
            Prototypes.load(path)


def rewrite(prototypes: Prototypes, path: Path, about: dict[str, Any], tensors: dict[str, torch.Tensor | None]) -> None:
    """Save, then replace parts of the header and tensors; None drops one."""
    prototypes.save(path)
    with safe_open(str(path), framework="pt") as file:
        header = json.loads(file.metadata()["refseg_prototypes"])
    kept = {name: tensor for name, tensor in {**load_file(path), **tensors}.items() if tensor is not None}
    save_file(kept, path, metadata={"refseg_prototypes": json.dumps({**header, **about})})
