"""What `refseg benchmark` is asked to do, and what that comes to: a list of runs. No FiftyOne."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType

from ..checks import names_or_none, path_of, require_flags, require_kind, require_names, require_whole, share_of
from ..coco import CocoDataset
from ..images import PLAIN, PixelSettings, pixel_settings
from ..masks import Refusal
from ..matching import MatchSettings
from .miou import Episode
from .suite import Draw, Part, Split, Suite

FIRST_SEED = 33
"""Of the published draw (method.md, "Published numbers")."""


@dataclass(frozen=True)
class BenchmarkJob:
    """A benchmark and how to run it.

    Attributes:
        name: one of `refseg.published.command.BENCHMARKS`.
        data: the folder its files were unpacked to; of `custom` the folder of images.
        out: folder for results, tables and pictures; a run that was stopped goes on from what lies there.
        model: the preset's name.
        shots: references a class; by default those that are published, or, of `custom`, all there are.
        num_seeds: draws of references.
        seed: the first; the others follow it.
        limit: only so many images of each part, evenly spread; of `coco-20i` so many episodes a fold.
        classes: "novel", "all", or names; by default those that are published.
        only: keys of parts or splits; by default all.
        references: a file of references in place of drawn ones, "{shots}" and "{seed}" in its name are filled in; of `custom`
            the COCO file of references.
        targets: of `custom` the COCO file of targets.
        min_score: least score of what is pictured, written to the dataset, or part of a semantic map; by default the preset's.
        matching: how candidates are compared with prototypes; by default as suits the preset.
        device: see `refseg.load_models`.
        sam2_path: see `refseg.load_models`.
        dinov2_path: see `refseg.load_models`.
        num_workers: threads that decode images.
        num_processes: that match and score; by default as many as there are cores where there is much to do.
        strict: an annotation that cannot be used is an error; by default it is left out and listed.
        pixel_range: see `refseg.build_index`; by default found, for each part, from its targets and references together.
        channels: see `refseg.build_index`.
        insist: begin even where there seems to be too little room on the disk.
    """

    name: str
    data: Path
    out: Path
    model: str = "paper"
    shots: tuple[int, ...] | None = None
    num_seeds: int = 1
    seed: int = FIRST_SEED
    limit: int | None = None
    classes: tuple[str, ...] | None = None
    only: tuple[str, ...] | None = None
    references: str | None = None
    targets: Path | None = None
    min_score: float | None = None
    matching: MatchSettings | None = None
    device: str | None = None
    sam2_path: Path | None = None
    dinov2_path: Path | None = None
    num_workers: int | None = None
    num_processes: int | None = None
    strict: bool = False
    pixel_range: tuple[float, float] | None = None
    channels: tuple[int, ...] | None = None
    insist: bool = False

    def __post_init__(self) -> None:
        require_names(name=self.name, model=self.model)
        require_names(or_none=True, references=self.references, device=self.device)
        require_whole(0, seed=self.seed)
        # Too small ones are listed with all else that is missing.
        require_whole(None, num_seeds=self.num_seeds)
        require_whole(None, or_none=True, limit=self.limit)
        if self.shots is not None:
            require_kind((tuple, list), "whole numbers, such as (1, 5), or None", shots=self.shots)
            for number in self.shots:
                require_whole(None, shots=number)
        require_whole(0, or_none=True, num_workers=self.num_workers, num_processes=self.num_processes)
        require_flags(strict=self.strict, insist=self.insist)
        pixel_settings(self.pixel_range, self.channels)
        require_kind((MatchSettings, NoneType), "MatchSettings or None", matching=self.matching)
        if self.min_score is not None:
            share_of("min_score", self.min_score)
        for name in ("data", "out"):
            object.__setattr__(self, name, Path(path_of(name, getattr(self, name))))
        for name in ("targets", "sam2_path", "dinov2_path"):
            given = getattr(self, name)
            object.__setattr__(self, name, None if given is None else Path(path_of(name, given)))
        for name in ("classes", "only"):
            object.__setattr__(self, name, names_or_none(name, getattr(self, name)))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of all draws."""
        return tuple(range(self.seed, self.seed + self.num_seeds))


@dataclass(frozen=True)
class Run:
    """One number of shots and one seed for one split.

    Attributes:
        part: its targets.
        split: its classes.
        shots: references a class; None for all that the pool holds.
        seed: of the draw.
        pool: that the references were drawn from.
        draw: the references; of a run in episodes those of all of them.
        episodes: where each image is asked for one class with references of its own; else empty.
    """

    part: Part
    split: Split
    shots: int | None
    seed: int
    pool: CocoDataset
    draw: Draw
    episodes: tuple[Episode, ...] = ()

    @property
    def tag(self) -> str:
        """Names its files."""
        shots = "all" if self.shots is None else f"{self.shots}shot"
        return "-".join([*group_of(self.part, self.split), shots, f"seed{self.seed}"])

    @property
    def shown_shots(self) -> str:
        """For headings."""
        return "all references" if self.shots is None else f"{self.shots} shot{'s' * (self.shots > 1)}"


def group_of(part: Part, split: Split) -> list[str]:
    """The keys that name a part's split in files, fields and tables."""
    return [key for key in (part.key, split.key) if key]


@dataclass(frozen=True)
class Plan:
    """All runs of a job, after it was found that nothing is missing.

    Attributes:
        job: what was asked.
        suite: the benchmark as it lies on this machine.
        runs: by part, then split, then seed, the largest number of shots first: the others reuse its vectors.
        notes: what whoever reads the figures should know.
        left_out: annotations that cannot be used, or whose mask cannot, by the file they are in.
        index_bytes: estimate of the disk that candidates of all targets take.
        downloads: what is to be downloaded before the models can run, a sentence each.
        pixels: how the images of each part are read, targets and references alike, by its key.
    """

    job: BenchmarkJob
    suite: Suite
    runs: tuple[Run, ...]
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, Sequence[Refusal]] = field(default_factory=dict)
    index_bytes: int = 0
    downloads: tuple[str, ...] = ()
    pixels: Mapping[str, PixelSettings] = field(default_factory=dict)

    def pixels_of(self, part: Part) -> PixelSettings:
        """How the images of a part are read."""
        return self.pixels.get(part.key, PLAIN)

    @property
    def num_images(self) -> int:
        """Target images of all parts."""
        return sum(len(part.targets.images) for part in self.suite.parts)
