"""What each extension of the published matching is worth: accuracy, silence and the work of review, on worlds of four kinds.

    python -m benchmarks.quality             # the seeds that are reported
    python -m benchmarks.quality --tuning    # the seeds that defaults were chosen on

Two draws of each world (`benchmarks/worlds.py`) with five choices of references each, at 1 to 30 shots, by the demo preset. The
first run computes the candidates of all images, about 40 minutes on two cores, which are kept; after that about half an hour
for all rows. Row `paper` is the published matching at the preset's threshold, of masks as the segmenter gives them, neither
cleaned nor averaged; `base` the same of the candidates of all other rows, masks merged on their grid; each row after that adds
one extension to `base`. An extension's default is what row `default` has. Scores are probabilities where a row says nothing
else, and instances of 0.5 or more are answers.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quality_report import as_markdown, draw_curves, draw_reliability, judge_targets
from benchmarks.quality_scores import calibration_error, measure
from benchmarks.report import machine
from benchmarks.worlds import NUM_KNOWN_EMPTY, WORLDS, Draw, draw_world, open_candidates
from refseg.calibration import Teacher, add_mined, calibrator_for, choose_shrinkage, default_thresholds, join_surroundings, mine
from refseg.candidates import LOOK_VERSION, PackedCandidates, encode_patches, patch_similarity
from refseg.coco import CocoDataset, to_results
from refseg.images import encoder_pixels, read_image, segmenter_pixels
from refseg.index import CandidateIndex
from refseg.matching import PUBLISHED, Looked, Matcher, MatchSettings, look_at_file, make_matcher
from refseg.models import Models, load_models
from refseg.prototypes import (
    MAX_COHORT,
    Cohort,
    KnownObject,
    Prototypes,
    Reference,
    Surroundings,
    build_prototypes,
    image_key,
    look_around,
    paste_mask,
)

MODEL = "demo"
SHOTS = (1, 2, 3, 5, 10, 30)
TUNING_DRAWS, REPORTED_DRAWS = (1, 2), (11, 12)
CHOICES = 5
"""Choices of references in each draw."""
BASE = replace(PUBLISHED, negatives=False)
ONE_LOOK = MatchSettings(second_look=False)
"""What the default was before candidates were looked at twice."""
GATE = 0.6


Kind = tuple[bool, bool]
"""Of candidates: whether images were looked at in tiles, and whether masks are as the segmenter gives them."""


@dataclass(frozen=True)
class Row:
    """One way of matching.

    Attributes:
        name: in the table.
        settings: of the matching.
        as_published: merge masks at full size, and let masks that resemble no class take part in the NMS.
        empties: images known to be empty that calibration sees and negatives are mined from.
        tiles: whether images are looked at in tiles.
        gate: the presence gate; None for none.
    """

    name: str
    settings: MatchSettings
    as_published: bool = False
    empties: int = 0
    tiles: bool = False
    gate: float | None = None

    @property
    def kind(self) -> Kind:
        """Which candidates it takes; the published matching those whose masks nobody has cleaned or averaged."""
        return self.tiles, self.as_published


ROWS = (
    Row("paper", BASE, as_published=True),
    Row("paper, tiles", BASE, as_published=True, tiles=True),
    Row("base", BASE),
    Row("+ negatives mined in 12 empty images", replace(BASE, negatives=True), empties=NUM_KNOWN_EMPTY),
    Row("+ background", replace(BASE, background=True)),
    Row("+ calibrated thresholds", replace(BASE, calibrated=True)),
    Row("+ nearest references", replace(BASE, class_similarity="nearest")),
    Row("+ clusters of references", replace(BASE, class_similarity="clusters")),
    Row("+ references in their scenes", replace(BASE, scenes=True)),
    Row("+ diffusion", replace(BASE, overlaps="diffusion")),
    Row(f"+ presence gate {GATE}", BASE, gate=GATE),
    Row("+ tiles", BASE, tiles=True),
    Row("default, one look", ONE_LOOK),
    Row("default, one look, tiles", ONE_LOOK, tiles=True),
    Row("default, not whitened", MatchSettings(whiten=False)),
    Row("default, not calibrated", MatchSettings(calibrated=False)),
    Row("default", MatchSettings()),
    Row("default, 12 empty images", MatchSettings(), empties=NUM_KNOWN_EMPTY),
    Row("default, tiles", MatchSettings(), tiles=True),
    Row(
        "all",
        MatchSettings(True, True, "nearest", True, "diffusion", True),
        empties=NUM_KNOWN_EMPTY,
        tiles=True,
        gate=GATE,
    ),
)
TILED_WORLDS = ("small",)
"""Where images are looked at in tiles: that takes seven times as long, and objects elsewhere are large."""


@dataclass(frozen=True)
class Scene:
    """A draw with everything that was computed of it.

    Attributes:
        targets: images to be segmented, with their objects.
        candidates: of every image, by file name, of each kind.
        pool: prototypes of every object that can be a reference.
        around: what lies around every object of the pool, and in the images known to be empty.
        empties: keys of the images known to be empty.
        patches: of each target image, patch features.
        folder: of the images.
        models: that computed it.
    """

    targets: CocoDataset
    candidates: dict[Kind, dict[str, PackedCandidates]]
    pool: Prototypes
    around: dict[Kind, Surroundings]
    empties: tuple[str, ...]
    patches: dict[str, torch.Tensor]
    folder: Path
    models: Models
    eyes: dict[Kind, Eyes]
    cohorts: dict[Kind, Cohort]


@dataclass
class Eyes:
    """Second looks at the candidates of a draw, kept beside them.

    Attributes:
        index: of the candidates.
        folder: of the images.
        models: that look.
    """

    index: CandidateIndex
    folder: Path
    models: Models
    _known: dict[str, dict[int, torch.Tensor]] = field(default_factory=dict)

    def look(self, name: str, candidates: PackedCandidates, rows: torch.Tensor) -> Looked:
        """Second looks at some candidates of an image; computed once."""
        known = self._known.setdefault(name, self._kept(name))
        missing = torch.tensor([row for row in rows.tolist() if row not in known], dtype=torch.int64)
        if len(missing):
            looked = look_at_file(str(self.folder / name), candidates, missing, self.models)
            assert looked is not None
            known.update(zip(missing.tolist(), looked.looks, strict=True))
            self.index.looks.append([(self.index.images[name], looked.rows, looked.looks)])
        looks = [known[row] for row in rows.tolist()]
        return Looked(rows, torch.stack(looks) if looks else torch.zeros(0, self.models.look_width))

    def _kept(self, name: str) -> dict[int, torch.Tensor]:
        rows, looks = self.index.looks.read([self.index.images[name]])[0]
        return dict(zip(rows.tolist(), looks, strict=True))


def open_scene(draw: Draw, models: Models, kinds: Collection[Kind]) -> Scene:
    """Compute, or read, what there is to know of a draw, with these kinds of candidates."""
    references = {reference.id: reference for reference in draw.references()}
    kept = draw.folder / f"pool-{models.fingerprint}-{models.preset.encoder_side}-{LOOK_VERSION}.safetensors"
    if not kept.exists():
        build_prototypes(list(references.values()), models, progress=False).save(kept)
    by_image: dict[str, list[Reference]] = {}
    for reference in references.values():
        by_image.setdefault(Path(reference.image).name, []).append(reference)
    targets = draw.listing("target")
    eyes = {kind: _eyes(draw, models, kind) for kind in kinds}
    candidates = {kind: _candidates(eyes[kind].index) for kind in kinds}
    pool = Prototypes.load(kept)
    return Scene(
        targets,
        candidates,
        pool,
        {
            kind: _look_around(draw.folder, found, by_image, Teacher(pool, models.preset), eyes[kind])
            for kind, found in candidates.items()
        },
        tuple(image_key(str(path)) for path in sorted(draw.folder.glob("known_empty*.png"))),
        {image.file_name: _patches(draw.folder / image.file_name, models) for image in targets.images.values()},
        draw.folder,
        models,
        eyes,
        {kind: _cohort(candidates[kind], eyes[kind]) for kind in kinds},
    )


def _eyes(draw: Draw, models: Models, kind: Kind) -> Eyes:
    tiles, raw = kind
    preset = replace(models.preset, clean_masks=False, vote_masks=False) if raw else models.preset
    index = open_candidates(draw, replace(models, preset=preset), tiles=tiles, progress=False)
    return Eyes(index, draw.folder, models)


def _cohort(candidates: dict[str, PackedCandidates], eyes: Eyes) -> Cohort:
    """Candidates of the target images, which stand for the dataset."""
    rng = np.random.default_rng(0)
    names = sorted(name for name in candidates if name.startswith("target"))
    every = [(name, row) for name in names for row in range(len(candidates[name]))]
    chosen = [every[number] for number in rng.permutation(len(every))[:MAX_COHORT]]
    parts = []
    for name in names:
        rows = torch.tensor([row for other, row in chosen if other == name], dtype=torch.int64)
        parts.append((candidates[name].features[rows], eyes.look(name, candidates[name], rows).looks))
    features, looks = (torch.cat(column).half() for column in zip(*parts, strict=True))
    return Cohort(features, looks, len(names))


def _candidates(index: CandidateIndex) -> dict[str, PackedCandidates]:
    return {image.sample_id: chunk.candidates(number) for chunk in index.scan() for number, image in enumerate(chunk.images)}


def _look_around(
    folder: Path,
    candidates: dict[str, PackedCandidates],
    by_image: dict[str, list[Reference]],
    teacher: Teacher,
    eyes: Eyes,
) -> Surroundings:
    parts = []
    for name in sorted(name for name in candidates if not name.startswith("target")):
        found = candidates[name]
        known = [
            KnownObject(item.id, paste_mask(item.mask, item.extent, found.image_hw))
            for item in by_image.get(name, ())
            if item.mask is not None
        ]
        key = image_key(str(folder / name))
        looks = teacher.looks(found, key, partial(eyes.look, name, found))
        parts.append(look_around(found, known, key, looks))
    return join_surroundings(parts)


@torch.inference_mode()
def _patches(path: Path, models: Models) -> torch.Tensor:
    pixels = segmenter_pixels(read_image(path), models.segmenter_side)[None]
    return encode_patches(encoder_pixels(pixels, models.preset.encoder_side), models)[0].float()


def show(scene: Scene, seed: int, shots: int, kind: Kind, empties: int) -> Prototypes:
    """Prototypes of some references of each class, drawn by a seed, with what lies around them."""
    rng = np.random.default_rng(seed)
    labels = scene.pool.labels.numpy()
    chosen = [rng.permutation(np.flatnonzero(labels == row))[:shots] for row in range(len(scene.pool.classes))]
    ids = {scene.pool.reference_ids[row] for row in np.concatenate(chosen)}
    # What shows an object that was not chosen is left out with it: it is labelled, so it is no stranger.
    prototypes = replace(scene.pool, surroundings=scene.around[kind]).remove(set(scene.pool.reference_ids) - ids)
    around = prototypes.surroundings
    assert around is not None
    known = {*prototypes.images, *scene.empties[:empties]}
    rows = [row for row, image in enumerate(around.images) if image in known]
    taught = replace(prototypes, surroundings=around.take(rows), cohort=scene.cohorts[kind])
    return choose_shrinkage(taught, scene.models.preset)


def _image_hw(scene: Scene) -> tuple[int, int]:
    image_hw = next(iter(scene.targets.images.values())).image_hw
    assert image_hw is not None
    return image_hw


def _with_mined(scene: Scene, prototypes: Prototypes, row: Row) -> Prototypes:
    matcher, _ = _matcher(scene, prototypes, row)
    names = sorted(name for name in scene.candidates[row.kind] if name.startswith("known_empty"))[: row.empties]
    found = []
    for name in names:
        candidates = scene.candidates[row.kind][name]
        looked = scene.eyes[row.kind].look(name, candidates, matcher.pick(candidates))
        found.append(mine(candidates, matcher, prototypes.classes, image_key(str(scene.folder / name)), name, looked))
    found = [mined.above(matcher.thresholds) for mined in found]
    return add_mined(prototypes, found, matcher, sources=names)


def _matcher(scene: Scene, prototypes: Prototypes, row: Row) -> tuple[Matcher, dict[str, float]]:
    """Every score counts; and the thresholds above which an instance counts as an answer."""
    preset = replace(scene.models.preset, as_published=row.as_published)
    calibrator = calibrator_for(prototypes, preset, row.settings)
    every = dict.fromkeys(prototypes.classes, 0.0)
    matcher = make_matcher(prototypes, preset, row.settings, every, calibrator=calibrator)
    # The published matching writes every score: what counts as an answer here takes the preset's one threshold.
    preset = replace(preset, as_published=False)
    return matcher, default_thresholds(prototypes, preset, row.settings, calibrator)


def measure_row(scene: Scene, row: Row, seed: int, shots: int) -> dict[str, float | None]:
    """Every figure of one way of matching with one choice of references."""
    prototypes = show(scene, seed, shots, row.kind, row.empties)
    if row.empties and row.settings.negatives:
        prototypes = _with_mined(scene, prototypes, row)
    matcher, thresholds = _matcher(scene, prototypes, row)
    ids = {name: number for number, name in scene.targets.categories.items()}
    categories = [ids[name] for name in prototypes.classes]
    results: list[dict[str, Any]] = []
    spared = 0
    for image_id, image in scene.targets.images.items():
        name = image.file_name
        if row.gate is not None and patch_similarity(scene.patches[name], prototypes.matrix).max() < row.gate:
            spared += 1
            continue
        candidates = scene.candidates[row.kind][name]
        instances = matcher.match(candidates, scene.eyes[row.kind].look(name, candidates, matcher.pick(candidates)))
        results += to_results(instances, categories, image_id, _image_hw(scene))
    least = {ids[name]: value for name, value in thresholds.items()}
    figures = measure(scene.targets, results, least, matcher.calibrator is not None)
    return {**figures, "spared": spared / len(scene.targets.images)}


def measure_draw(
    task: tuple[str, int],
    rows: Sequence[Row],
    shots: Sequence[int],
    choices: int,
    cache: Path,
    done: Collection[tuple[Any, ...]],
    clean_masks: bool = True,
) -> list[dict[str, Any]]:
    """Every row on one draw of a world, without what is done; with masks as they are unless they are to be cleaned."""
    torch.set_num_threads(1)
    world, seed = task
    if world not in TILED_WORLDS:
        rows = [replace(row, tiles=False) for row in rows if not row.tiles or row.name == "all"]
    wanted = [(row, number, choice) for row in rows for number in shots for choice in range(choices)]
    wanted = [(row, *rest) for row, *rest in wanted if (world, seed, row.name, *rest) not in done]
    if not wanted:
        return []
    models = load_models(MODEL)
    models = replace(models, preset=replace(models.preset, clean_masks=clean_masks))
    scene = open_scene(draw_world(WORLDS[world], seed, cache), models, {row.kind for row, *_ in wanted})
    measured = []
    for row, number, choice in wanted:
        figures = measure_row(scene, row, choice, number)
        measured.append({"world": world, "draw": seed, "row": row.name, "shots": number, "choice": choice, **figures})
        if choice == choices - 1:
            print(f"{world} {seed}, {row.name}, {number} shots", flush=True)
    return measured


def summarize(measured: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Mean and standard deviation over draws and choices of references, for each row, world and number of shots."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for entry in measured:
        groups.setdefault((entry["row"], entry["world"], entry["shots"]), []).append(entry)
    for (row, world, shots), entries in groups.items():
        about: dict[str, Any] = {"row": row, "world": world, "shots": shots, "number": len(entries)}
        for name in entries[0]:
            values = [entry[name] for entry in entries if isinstance(entry[name], float) and not np.isnan(entry[name])]
            if name in ("row", "world", "shots", "choice", "draw") or not values:
                continue
            about[name] = statistics.mean(values)
            about[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else 0.0
        pairs = [pair for entry in entries for pair in entry.get("told", ())]
        about["ece"], about["ece_std"] = calibration_error(np.array(pairs, float).reshape(-1, 2)), 0.0
        yield about


def _earlier(path: Path, draws: Sequence[int]) -> list[dict[str, Any]]:
    """What a run that was stopped, or one of other rows, has measured."""
    if not path.exists():
        return []
    about = json.loads(path.read_text())
    if list(about["draws"]) != list(draws):
        raise SystemExit(f"{path} holds figures of other seeds: choose another folder with --out.")
    measured: list[dict[str, Any]] = about["measured"]
    return measured


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuning", action="store_true", help="the seeds for choosing defaults")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these rows")
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--shots", nargs="+", type=int, default=list(SHOTS))
    parser.add_argument("--choices", type=int, default=CHOICES, help="choices of references in each of two draws")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "refseg" / "quality")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("quality"),
        help="folder for the table, the figures and the picture; what it holds already is not measured again",
    )
    parser.add_argument("--raw", action="store_true", help="leave masks as the segmenter gives them")
    parser.add_argument("--workers", type=int, default=2, help="processes; each takes one core")
    options = parser.parse_args()
    rows = [row for row in ROWS if options.rows is None or row.name in options.rows]
    draws = TUNING_DRAWS if options.tuning else REPORTED_DRAWS
    tasks = [(world, draw) for draw in draws for world in reversed(options.worlds)]
    kept = options.out / "quality.json"
    options.out.mkdir(parents=True, exist_ok=True)
    measured = _earlier(kept, draws)
    done = {(e["world"], e["draw"], e["row"], e["shots"], e["choice"]) for e in measured}
    asked = {"rows": rows, "shots": options.shots, "choices": options.choices, "clean_masks": not options.raw}
    work = partial(measure_draw, **asked, cache=options.cache, done=done)
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for entries in pool.map(work, tasks):
            measured += entries
            about = {"machine": machine(), "draws": draws, "summary": list(summarize(measured)), "measured": measured}
            kept.write_text(json.dumps(about, indent=1) + "\n")
    summary = list(summarize(measured))
    names = [row.name for row in ROWS]
    text = as_markdown(summary, names) + "\n\n" + judge_targets(summary)
    (options.out / "quality.md").write_text(text + "\n")
    draw_curves(summary, names, options.out / "quality.png")
    draw_reliability(measured, options.out / "reliability.png")
    print(text)


if __name__ == "__main__":
    main()
