"""The references that an object under review is most like, to be shown beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..forms.constants import PROTOTYPES_METHOD
from ..forms.selection import collection
from . import looking
from . import settings as panel_settings
from .acting import told
from .telling import newest

SHOWN = 3
"""References of a class."""
BY = {
    "second look": ("Most like", "The references of its class, and of the runner-up, that it is most like, by a second look"),
    "first look": ("Most like", "The references of its class, and of the runner-up, that it is most like"),
    "quality": ("Typical", "The index does not hold this object, so these are the most typical references of its class"),
}
"""What stands above the references, and what that means."""


class Nearest:
    """A method of the panel, called by `js/nearest.js` once the object is shown."""

    @told
    def nearest(self, ctx: Any) -> Any:
        """By label id the nearest references of the class and of the runner-up, each with what its picture is asked for by."""
        from refseg.errors import RefSegError
        from refseg.review import like_references

        settings, wanted = panel_settings.read(ctx), ctx.params["wanted"]
        tagged = {label.label_id: label for label in looking.tagged_labels(ctx, settings, waits=True).labels}
        shown = {name for name, label in tagged.items() if not label.is_negative}
        places = {item["label_id"]: item["sample_id"] for item in wanted}
        try:
            found = like_references(collection(ctx), places, settings.label_field, number=SHOWN, among=shown)
        except RefSegError:
            # It is nothing but a help; whatever uses the index says what is wrong with it.
            found = {}
        typical = None
        answer = {}
        for item in wanted:
            known = found.get(item["label_id"])
            if known is None:
                typical = _typical(ctx, tagged) if typical is None else typical
                names = [name for name in (item["label"], item.get("runner_up")) if name]
                by, classes = "quality", [(name, typical.get(name, ())[:SHOWN]) for name in dict.fromkeys(names)]
            else:
                by, classes = known.by, list(known.classes)
            answer[item["label_id"]] = {
                "short": BY[by][0],
                "about": BY[by][1],
                "classes": [
                    {"name": name, "items": [_shown(tagged[one], similarity) for one, similarity in rows if one in tagged]}
                    for name, rows in classes
                ],
            }
        return answer


def _typical(ctx: Any, tagged: Mapping[str, Any]) -> dict[str, Sequence[tuple[str, float | None]]]:
    """References by class, those most like the others of their class first, as their prototypes' record says."""
    quality = {row[0]: row[2] for row in (newest(ctx, PROTOTYPES_METHOD, whole=True) or {}).get("quality") or ()}
    rows: dict[str, list[tuple[str, float | None]]] = {}
    for label in tagged.values():
        if not label.is_negative:
            rows.setdefault(label.label, []).append((label.label_id, None))
    for own in rows.values():
        own.sort(key=lambda row: -(quality.get(row[0]) or -1.0))
    return dict(rows)


def _shown(label: Any, similarity: float | None) -> dict[str, Any]:
    rounded = None if similarity is None else round(similarity, 3)
    return {"id": label.label_id, "sample_id": label.sample_id, "field": label.field, "similarity": rounded}
