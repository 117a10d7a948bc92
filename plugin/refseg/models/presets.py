"""The presets: which segmenter goes with which DINOv2, and how they are asked. A preset is a value; nothing is loaded here.

Presets of one's own weights are registered for the process that uses them: see `register_preset`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ModelError, UnknownModelError
from ..regular_files import read_regular

DEMO_WEIGHTS = Path(__file__).parent.parent / "demo" / "weights"

# Revisions of the Hugging Face repositories, so that the same preset is the same weights for everybody.
_DINOV2 = {
    "small": ("facebook/dinov2-small", "ed25f3a31f01632728cabb09d1542f84ab7b0056", 88),
    "base": ("facebook/dinov2-base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415", 346),
    "large": ("facebook/dinov2-large", "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c", 1218),
}


_FEATURE_WIDTHS = {"small": 384, "base": 768, "large": 1024}
FAST = "-fast"
"""Ends the names of presets with adaptive prompts."""

OF_TRANSFORMERS = ("sam2", "edgetam", "sam3_tracker")
"""What a preset's `sam2_config` is where its segmenter is one of transformers; see `refseg.models.transformers_segmenters`."""


@dataclass(frozen=True)
class Preset:
    """Names and settings of a pair of models.

    Attributes:
        name: what users type.
        sam2_config: configuration inside the `sam2` package, or a YAML file; one of OF_TRANSFORMERS for a segmenter of theirs.
        sam2_zoo_name: the checkpoint's name in FiftyOne's model zoo; None where it is not from there.
        sam2_megabytes: size of the download.
        dinov2_repository: on the Hugging Face hub, or a folder on this machine, which `save_pretrained` wrote.
        dinov2_revision: commit on the hub; None for a folder.
        dinov2_megabytes: size of the download.
        points_per_side: n of the n by n grid of prompts.
        encoder_side: E, pixels, a multiple of the encoder's patch size.
        adaptive_prompts: judge prompts at half the size first, and ask again only at a third of them: nearly all of the masks
            for a part of the work; see `refseg.candidates.prompts`.
        add_no_memory: add SAM 2's no-memory embedding to the image embedding, as its own image predictor does.
        clean_masks: take small islands and holes out of every mask of the segmenter; see `refseg.candidates.cleaning`.
        vote_masks: average each mask of the prompt grid with those that nearly coincide, and let its predicted IoU tell how
            many do; see `refseg.candidates.voting`.
        as_published: match to the letter of the paper; see `refseg.matching.ranking.match`.
        half: bfloat16 where it pays, see `refseg.models.loaded.default_dtype`; otherwise float32 everywhere.
        typical_threshold: score from which on an answer is more likely right than wrong: what calibration starts from, and what
            pictures and maps show.
        second_looks: so many candidates of an image, the best in all classes together, are looked at again as crops; see
            `refseg.candidates.second_look`. 0 for none, as published.
        sam2_file: a checkpoint on this machine, used instead of the download; a folder for a segmenter of transformers.
        sam2_repository: on the Hugging Face hub, for a segmenter of transformers.
        sam2_revision: commit or branch there.
        sam2_licence: of the segmenter, where people must accept it on the hub before the download: its name.
    """

    name: str
    sam2_config: str
    sam2_zoo_name: str | None
    sam2_megabytes: int
    dinov2_repository: str
    dinov2_revision: str | None
    dinov2_megabytes: int
    points_per_side: int = 32
    encoder_side: int = 518
    adaptive_prompts: bool = False
    add_no_memory: bool = True
    clean_masks: bool = True
    vote_masks: bool = False
    as_published: bool = False
    half: bool = True
    typical_threshold: float = 0.3
    second_looks: int = 8
    sam2_file: str | None = None
    sam2_repository: str | None = None
    sam2_revision: str | None = None
    sam2_licence: str | None = None

    @property
    def is_of_transformers(self) -> bool:
        """Whether the segmenter comes as a `save_pretrained` folder for transformers."""
        return self.sam2_config in OF_TRANSFORMERS

    @property
    def min_confidence(self) -> float:
        """Default score below which nothing is written; the published answer has no threshold."""
        return 0.0 if self.as_published else self.typical_threshold

    @property
    def exact_name(self) -> str:
        """The name of the preset of the same models that is asked at every prompt."""
        return self.name.removesuffix(FAST)

    @property
    def encoder(self) -> tuple[str, str | None, int]:
        """What tells encoders apart before their weights are here: presets of which it differs have different features."""
        return self.dinov2_repository, self.dinov2_revision, self.encoder_side

    @property
    def feature_width(self) -> int:
        """Values of a feature, before any weights are here; 1024 where neither the repository's name nor a file says it."""
        named = (width for size, width in _FEATURE_WIDTHS.items() if self.dinov2_repository.endswith(size))
        try:
            described = json.loads(read_regular(Path(self.dinov2_repository) / "config.json"))
            return int(described["hidden_size"])
        except (OSError, ValueError, KeyError, TypeError):
            return next(named, 1024)

    @property
    def exact(self) -> Preset:
        """The same models, asked at every prompt."""
        return replace(self, name=self.exact_name, adaptive_prompts=False) if self.adaptive_prompts else self


def _published(name: str, sam2_size: str, config: str, megabytes: int, dinov2_size: str) -> Preset:
    repository, revision, dinov2_megabytes = _DINOV2[dinov2_size]
    return Preset(
        name,
        f"configs/sam2.1/sam2.1_hiera_{config}.yaml",
        f"segment-anything-2.1-hiera-{sam2_size}-image-torch",
        megabytes,
        repository,
        revision,
        dinov2_megabytes,
    )


def _of_transformers(
    name: str, kind: str, repository: str, megabytes: int, dinov2_size: str, *, licence: str | None = None
) -> Preset:
    # A branch and not a commit: what was loaded is told by the weights' SHA-256 alone, in each index and run.
    return Preset(
        name,
        kind,
        None,
        megabytes,
        *_DINOV2[dinov2_size],
        sam2_repository=repository,
        sam2_revision="main",
        sam2_licence=licence,
    )


def fast_preset(preset: Preset) -> Preset:
    """The same models, asked at fewer prompts."""
    return replace(preset, name=preset.name + FAST, adaptive_prompts=True)


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "demo",
            str(DEMO_WEIGHTS / "sam2.yaml"),
            None,
            0,
            str(DEMO_WEIGHTS / "dinov2"),
            None,
            0,
            points_per_side=16,
            encoder_side=448,  # more patches tell small objects and look-alikes better apart
            vote_masks=True,  # a small segmenter's masks differ from click to click
            typical_threshold=0.7,  # within 0.01 of the best F1 of benchmarks/demo_confidence.py, and quieter than the best
            sam2_file=str(DEMO_WEIGHTS / "sam2.safetensors"),
        ),
        _published("tiny", "tiny", "t", 156, "small"),
        _published("small", "small", "s", 184, "small"),
        _published("base", "base-plus", "b+", 324, "base"),
        _published("large", "large", "l", 898, "large"),
        _of_transformers("edge", "edgetam", "yonigozlan/EdgeTAM-hf", 56, "small"),
        _of_transformers("sam3", "sam3_tracker", "facebook/sam3", 3440, "large", licence="Meta's SAM License"),
        Preset(
            "paper",
            "configs/sam2/sam2_hiera_l.yaml",
            "segment-anything-2-hiera-large-image-torch",
            898,
            *_DINOV2["large"],
            add_no_memory=False,
            clean_masks=False,
            as_published=True,
            half=False,
            second_looks=0,
        ),
    )
}

PRESETS |= {preset.name: preset for preset in map(fast_preset, PRESETS.values()) if not preset.as_published}


def get_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        UnknownModelError: there is none.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise UnknownModelError(name, list(PRESETS)) from None


def same_models(name: str) -> str | None:
    """The preset of the same two models that is asked at more prompts, or at fewer; None where there is none.

    Features of both compare, so either's index and prototypes serve the other.

    Example:
        >>> same_models("large"), same_models("large-fast"), same_models("paper")
        ('large-fast', 'large', None)
    """
    other = name.removesuffix(FAST) if name.endswith(FAST) else name + FAST
    if name not in PRESETS or other not in PRESETS:
        return None
    return other if PRESETS[name].exact == PRESETS[other].exact else None


def register_preset(preset: Preset) -> None:
    """Let this process know a preset of one's own weights by its name, in Python and on the command line.

    Other processes, such as FiftyOne's delegated service, have to register it too. The App's forms offer those that ship.

    Args:
        preset: of a name that no other preset has. Its encoder's folder is `dinov2_repository`, without a revision. A segmenter
            of transformers is a folder too, `sam2_file`, and `sam2_config` says which it is.

    Raises:
        ModelError: the name is empty or another preset's, or there is no saying where its SAM 2 comes from.
    """
    if not preset.name.strip():
        raise ModelError("A preset needs a name.")
    if PRESETS.get(preset.name, preset) != preset:
        raise ModelError(f"There is another preset {preset.name!r} already: choose another name.")
    if preset.sam2_file is None and preset.sam2_zoo_name is None and preset.sam2_repository is None:
        raise ModelError(f"The preset {preset.name!r} does not say where its SAM 2 is: give its sam2_file.")
    PRESETS[preset.name] = preset


@contextmanager
def registered(*presets: Preset) -> Iterator[None]:
    """Presets that are known within a `with` block.

    Example:
        >>> with registered(replace(PRESETS["demo"], name="coarse", points_per_side=8)):
        ...     get_preset("coarse").points_per_side
        8

    Raises:
        ModelError: see register_preset.
    """
    before = dict(PRESETS)
    try:
        for preset in presets:
            register_preset(preset)
        yield
    finally:
        PRESETS.clear()
        PRESETS.update(before)
