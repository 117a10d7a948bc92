"""The drawn world: outlines, families, surfaces, trays, cameras and scenes of parts with exact masks."""

from .families import (
    TRAINING_PARTS,
    Family,
    draw_family,
    draw_grammar_family,
    draw_rich_family,
    mutate_family,
    mutate_rich_family,
)
from .outlines import NOVEL_PARTS, OUTLINES
from .scenes import MIN_VISIBLE, Scene, render_crowd, render_scene
from .trays import plain_tray, rich_tray

__all__ = [
    "MIN_VISIBLE",
    "NOVEL_PARTS",
    "OUTLINES",
    "TRAINING_PARTS",
    "Family",
    "Scene",
    "draw_family",
    "draw_grammar_family",
    "draw_rich_family",
    "mutate_family",
    "mutate_rich_family",
    "plain_tray",
    "render_crowd",
    "render_scene",
    "rich_tray",
]
