"""Deciding on predictions in the panel, one after the other or several at once, and taking decisions back."""

from __future__ import annotations

from typing import Any

from ..forms.messages import count
from ..forms.selection import collection
from . import examples as panel_examples
from . import looking
from . import settings as panel_settings
from .acting import DECIDED, clear_selection, decide_on, in_turn, open_sample, send, told

DONE = {"accept": "Accepted", "reject": "Rejected", "relabel": "Relabelled"}
"""What can be decided of several objects at once, and how that is told."""
MOST_AT_ONCE = 3_000
"""Objects that one press accepts: those of the best scores, in some seconds, in which no other decision is taken."""


class Reviewing:
    """Methods of the panel, called by `js/review.js` and `js/suggested.js`."""

    @told
    @in_turn
    def decide(self, ctx: Any) -> Any:
        """Accept, reject, relabel or take over for correction one object of the queue, or several that were suggested."""
        from refseg.errors import RefSegError

        kind, items = ctx.params["kind"], ctx.params.get("items") or [ctx.params["item"]]
        fields = set(collection(ctx).get_field_schema())
        try:
            ids = [[item[name] for item in items] for name in ("label_id", "sample_id")]
            replaced = decide_on(ctx, kind, *ids, ctx.params.get("label"), as_references=ctx.params.get("as_references"))
        except RefSegError:
            # It may have been replaced meanwhile, and would otherwise be asked for again and again.
            send(ctx, "review", "suggested")
            raise
        if kind == "fix" or set(collection(ctx).get_field_schema()) != fields:
            # The grid does not know the field of the first decision yet, and an open image not the copy to correct.
            ctx.ops.reload_dataset()
        if replaced:
            ctx.ops.notify(replaced, variant="info")
        if kind == "fix":
            open_sample(ctx, items[0]["sample_id"], to_annotate=True)
        send(ctx, *DECIDED)
        return True

    @told
    def scores(self, ctx: Any) -> Any:
        """How many open predictions there are of each score, in hundredths, of a class or of all."""
        found = looking.review(ctx, panel_settings.read(ctx), waits=True)
        counts = [0] * 101 if found is None else found.open.hundredths(ctx.params.get("label")).tolist()
        return {"counts": counts, "most": MOST_AT_ONCE}

    @told
    @in_turn
    def accept_above(self, ctx: Any) -> Any:
        """Accept the open predictions of a class, or of all, from a score on, given in hundredths: one decision."""
        settings, label, least = panel_settings.read(ctx), ctx.params.get("label"), int(ctx.params["least"])
        found = looking.review(ctx, settings, waits=True)
        chosen = [] if found is None else found.open.from_hundredth(least, label)[:MOST_AT_ONCE]
        if found is None or not chosen:
            whose = f" of the class {label!r}" if label else ""
            raise ValueError(f"No prediction{whose} that nobody has decided on has a score of {least / 100:.2f} or more.")
        fields = set(collection(ctx).get_field_schema())
        sample_ids = [str(found.sample_ids[number]) for _, number in chosen]
        replaced = decide_on(ctx, "accept", [label_id for label_id, _ in chosen], sample_ids, None)
        if set(collection(ctx).get_field_schema()) != fields:
            ctx.ops.reload_dataset()
        ctx.ops.notify(f"Accepted {count(len(chosen), 'object')}. {replaced}".rstrip(), variant="success")
        send(ctx, *DECIDED)
        return {"num": len(chosen)}

    @told
    @in_turn
    def decide_selected(self, ctx: Any) -> Any:
        """The same for every prediction selected in the App."""
        settings, kind = panel_settings.read(ctx), ctx.params["kind"]
        if kind not in DONE:
            raise ValueError(f"Of several objects one can decide {', '.join(map(repr, DONE))}, not {kind!r}.")
        chosen = panel_examples.selected_predictions(ctx, settings)
        if not chosen:
            raise ValueError(
                f"No object of the field {settings.label_field!r} is selected: select some in an image, or press 'Show in "
                "grid' and select patches."
            )
        replaced = decide_on(ctx, kind, chosen, None, ctx.params.get("label"))
        ctx.ops.notify(f"{DONE[kind]} {count(len(chosen), 'object')}. {replaced}".rstrip(), variant="success")
        clear_selection(ctx)
        ctx.ops.reload_samples()
        send(ctx, *DECIDED)
        return True

    @told
    @in_turn
    def undo(self, ctx: Any) -> Any:
        """Take the last decision back."""
        from refseg.review import Decision, undo

        store = ctx.store(panel_settings.STORE)
        kept = store.get("decisions") or []
        if not kept:
            raise ValueError("There is no decision to take back.")
        is_undone = undo(collection(ctx), Decision(**kept[-1]))
        store.set("decisions", kept[:-1])
        if not is_undone:
            ctx.ops.notify("The last decision had been taken back already.", variant="info")
        send(ctx, *DECIDED)
        return True
