"""Weights from files of the server, which a model is loaded from on this dataset."""

from __future__ import annotations

from typing import Any

from ..forms.weights import PLACES_OF_WEIGHTS, keep_files, problem_of
from . import settings as panel_settings
from .acting import send, told


class Files:
    """A method of the panel, called by `js/indexing.js`."""

    @told
    def use_files(self, ctx: Any) -> Any:
        """Keep the files that are named for the chosen model; an empty one asks for the download again."""
        given = {name: ctx.params[name] for name in PLACES_OF_WEIGHTS if name in ctx.params}
        model = panel_settings.read(ctx).model
        for name in given:
            if problem := problem_of(ctx, name, model):
                return {"problem": problem}
        keep_files(ctx, model, given)
        send(ctx, "index", "references", "segment")
        return {"problem": None}
