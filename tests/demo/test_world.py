from __future__ import annotations

import numpy as np
import pytest

from refseg.demo.shapes import OUTLINES
from refseg.demo.world import MIN_VISIBLE, NOVEL_PARTS, TRAINING_PARTS, Scene, draw_family, mutate_family, render_scene


def draw_scene(seed: int, count: int = 6, **options: object) -> Scene:
    rng = np.random.default_rng(seed)
    return render_scene(rng, [draw_family(rng) for _ in range(count)], **options)


def test_same_seed_same_scene() -> None:
    first, second = draw_scene(5), draw_scene(5)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.ids, second.ids)
    assert first.families == second.families


def test_other_seed_other_scene() -> None:
    assert not np.array_equal(draw_scene(5).image, draw_scene(6).image)


def test_chance_is_the_generators_alone() -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    draw_scene(5)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("image_hw", [(300, 400), (97, 61)])
def test_shapes(image_hw: tuple[int, int]) -> None:
    scene = draw_scene(2, image_hw=image_hw)
    assert scene.image.shape == (*image_hw, 3)
    assert scene.image.dtype == np.uint8
    assert scene.ids.shape == image_hw
    assert scene.masks.shape == (len(scene.families), *image_hw)
    assert scene.masks.dtype == bool


@pytest.mark.parametrize("seed", range(8))
def test_masks_are_disjoint_and_cover_what_has_an_id(seed: int) -> None:
    scene = draw_scene(seed, 10, max_overlap=0.6)
    masks = scene.masks
    assert len(scene.families) > 0
    assert masks.sum(0).max() <= 1
    np.testing.assert_array_equal(masks.any(0), scene.ids > 0)
    assert masks.any((1, 2)).all()
    assert scene.ids.max() == len(scene.families)
    assert list(scene.families) == sorted(set(scene.families))
    assert all(0 <= row < 10 for row in scene.families)


def test_no_families_is_an_empty_tray() -> None:
    scene = render_scene(np.random.default_rng(0), [])
    assert scene.families == ()
    assert scene.masks.shape == (0, 300, 400)
    assert scene.ids.max() == 0


def test_mask_is_where_the_part_was_painted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tray, light and camera, pixels inside the mask have the part's colour and pixels well outside do not."""
    from refseg.demo import world

    monkeypatch.setattr(world, "_background", lambda rng, height, width, families: np.ones((height, width, 3), np.float32))
    monkeypatch.setattr(world, "_shade", lambda rng, family, color, *rest: np.zeros_like(color))
    monkeypatch.setattr(world, "_cast_shadow", lambda *arguments: None)
    monkeypatch.setattr(world, "_photograph", lambda rng, canvas: (canvas * 255).astype(np.uint8))
    for seed in range(4):
        rng = np.random.default_rng(seed)
        scene = render_scene(rng, [draw_family(rng)], (200, 200), radius=(0.2, 0.3))
        dark = scene.image[..., 0] < 128
        assert scene.families == (0,)
        # The edge is painted with half a pixel of blur around the outline, where its distance is 0.
        overlap = (dark & scene.masks[0]).sum() / (dark | scene.masks[0]).sum()
        assert overlap > 0.97


def test_what_is_hardly_in_view_carries_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    from refseg.demo import world

    areas: list[int] = []
    draw_part = world._draw_part

    def draw_and_note(*arguments: object) -> int:
        areas.append(draw_part(*arguments))
        return areas[-1]

    monkeypatch.setattr(world, "_draw_part", draw_and_note)
    rng = np.random.default_rng(3)
    # Twelve large parts in a small picture: most end up behind others.
    scene = render_scene(rng, [draw_family(rng) for _ in range(12)], (120, 120), radius=(0.25, 0.3))
    assert len(areas) == 12
    assert 0 < len(scene.families) < 12
    for mask, row in zip(scene.masks, scene.families, strict=True):
        assert mask.sum() >= MIN_VISIBLE * areas[row]


def test_training_and_novel_parts_are_disjoint() -> None:
    assert set(TRAINING_PARTS) & set(NOVEL_PARTS) == set()
    assert set(TRAINING_PARTS) | set(NOVEL_PARTS) == set(OUTLINES)
    assert len(set(NOVEL_PARTS)) == len(NOVEL_PARTS) >= 6
    assert len(TRAINING_PARTS) >= 6


def test_families_are_of_training_parts_unless_told() -> None:
    rng = np.random.default_rng(0)
    families = [draw_family(rng) for _ in range(300)]
    assert {family.part for family in families} == set(TRAINING_PARTS)
    changed = [mutate_family(rng, family) for family in families]
    assert {family.part for family in changed} <= set(TRAINING_PARTS)


def test_families_of_novel_parts() -> None:
    rng = np.random.default_rng(0)
    assert {draw_family(rng, NOVEL_PARTS).part for _ in range(200)} == set(NOVEL_PARTS)


def test_families_are_distinct() -> None:
    rng = np.random.default_rng(0)
    assert len({draw_family(rng) for _ in range(1000)}) == 1000


def test_mutated_family_differs_in_one_respect() -> None:
    rng = np.random.default_rng(0)
    respects = {"outline": 0, "color": 0, "surface": 0}
    for _ in range(100):
        family = draw_family(rng)
        other = mutate_family(rng, family)
        changed = {name for name in vars(family) if getattr(family, name) != getattr(other, name)}
        assert changed
        if changed <= {"part", "shape"}:
            respects["outline"] += 1
        elif changed <= {"color", "accent"}:
            respects["color"] += 1
        else:
            assert changed <= {"pattern", "detail", "material", "accent"}
            respects["surface"] += 1
    assert min(respects.values()) > 10


@pytest.mark.parametrize("part", OUTLINES)
@pytest.mark.parametrize("shape", [0.0, 0.5, 0.9999])
def test_every_outline_draws_something_inside_its_circle(part: str, shape: float) -> None:
    line = np.linspace(-1.5, 1.5, 301, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    inside = OUTLINES[part](x, y, np.full(6, shape, np.float32)) < 0
    area = inside.mean() * 9  # of a square of side 3
    assert 0.3 < area < np.pi * 1.05**2
    # Painting reaches to 1.05 radii on each side; corners may stick out of the circle, never of that square.
    assert np.abs(x[inside]).max() <= 1.05
    assert np.abs(y[inside]).max() <= 1.05


@pytest.mark.parametrize("part", OUTLINES)
def test_every_part_is_labelled_in_a_scene(part: str) -> None:
    rng = np.random.default_rng(7)
    scene = render_scene(rng, [draw_family(rng, [part])], (160, 200), radius=(0.15, 0.2))
    assert scene.families == (0,)
    assert scene.masks[0].sum() > 100
