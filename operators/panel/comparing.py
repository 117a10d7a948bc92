"""Similar objects and heatmaps in the panel: what was found becomes references or negatives, and fields are switched off."""

from __future__ import annotations

from typing import Any

from ..forms.messages import count
from ..forms.selection import collection
from ..running.in_app import hide_fields
from . import examples as panel_examples
from .acting import DECIDED, clear_selection, decide_on, in_turn, send, told
from .alike import found_similar, require_named


class Comparing:
    """Methods of the panel, called by `js/similar.js` and `js/heatmap.js`."""

    @told
    @in_turn
    def add_similar(self, ctx: Any) -> Any:
        """Make those selected of the similar objects references of a class, and with Alt negatives of it; or all negatives."""
        from refseg.runs import name_found

        found = found_similar(ctx)
        if found is None:
            raise ValueError("No similar objects are open: find some first, and select of them in the grid.")
        field, name = found["field"], str(ctx.params.get("label") or "").strip()
        is_negative = bool(ctx.params.get("is_negative"))
        wanted = [] if is_negative else panel_examples.selected_of(ctx, field, ["default"])
        unwanted = panel_examples.selected_of(ctx, field, ["default", "alt"] if is_negative else ["alt"])
        if not wanted and not unwanted:
            raise ValueError("No object is selected: select patches in the grid.")
        if name:
            name_found(collection(ctx), field, [*wanted, *unwanted], name)
        else:
            require_named(ctx, field, [*wanted, *unwanted])
        added, replaced = [], []
        for kind, noun, chosen in (("accept", "reference", wanted), ("reject", "negative", unwanted)):
            if chosen:
                replaced.append(decide_on(ctx, kind, chosen, None, None, as_references=True, label_field=field))
                added.append(count(len(chosen), noun))
        ctx.ops.notify(" ".join([f"Added {' and '.join(added)}.", *filter(None, replaced)]), variant="success")
        clear_selection(ctx)
        ctx.ops.reload_dataset()
        send(ctx, "segment", *DECIDED)
        return True

    @told
    def hide(self, ctx: Any) -> Any:
        """Switch a field off in the App."""
        hide_fields(ctx, [ctx.params["field"]])
        return True
