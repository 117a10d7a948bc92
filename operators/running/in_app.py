"""What the App draws over images at an operator's end: fields switched on, and the colours of their values.

FiftyOne's own `set_active_fields` switches every other field off, and none of its operators sets colours, so both are done in
the browser, by `show_fields` of `operators/panel/panel.js`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SHOW_FIELDS = "@refseg/reference-segmentation/show_fields"

COLOURS = ("#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725")
"""The colour scale viridis, from the least value of a heatmap to the greatest: as light as it is high, for every eye."""


def show_fields(ctx: Any, fields: Sequence[str], *, in_colours: str | None = None) -> Any:
    """A message to the App: switch fields on beside those that are.

    Args:
        ctx: FiftyOne's execution context.
        fields: names, or paths such as "similar.confidence".
        in_colours: a field of heatmaps to be drawn in COLOURS over the range of its maps.
    """
    scale = None if in_colours is None else {"path": in_colours, "colours": list(COLOURS)}
    return ctx.trigger(SHOW_FIELDS, {"fields": list(fields), "scale": scale})


def hide_fields(ctx: Any, fields: Sequence[str]) -> Any:
    """A message to the App: switch fields off, and let labels have the colours that they had before heatmaps were drawn."""
    return ctx.trigger(SHOW_FIELDS, {"hidden": list(fields)})
