"""What candidates of one index have in common."""

from __future__ import annotations

import dataclasses
from typing import Any

import fiftyone as fo
import pytest

from refseg.dataset.index_settings import settings_of
from refseg.models.loaded import load_models


class TestModelsAndSettings:
    def test_fingerprint_changes_with_what_candidates_depend_on(
        self, trays: fo.Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        models = load_models("demo")
        own = settings_of(trays, models).fingerprint
        assert settings_of(trays, models).fingerprint == own

        def with_preset(**changes: Any) -> str:
            return settings_of(
                trays, dataclasses.replace(models, preset=dataclasses.replace(models.preset, **changes))
            ).fingerprint

        others = [
            settings_of(trays, models, exact=True).fingerprint,
            settings_of(trays, dataclasses.replace(models, revisions={**models.revisions, "sam2": "0"})).fingerprint,
            settings_of(trays, dataclasses.replace(models, revisions={**models.revisions, "dinov2": "0"})).fingerprint,
            with_preset(encoder_side=210),
            with_preset(points_per_side=7),
            with_preset(add_no_memory=False),
            with_preset(clean_masks=False),
            with_preset(vote_masks=False),
        ]
        monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", 0.5)
        others.append(settings_of(trays, models).fingerprint)
        for name in ("MIN_ISLAND", "MAX_HOLE"):
            with monkeypatch.context() as changed:
                changed.setattr(f"refseg.candidates.cleaning.{name}", 0.2)
                others.append(settings_of(trays, models).fingerprint)
        for name in ("VOTE_IOU", "NEAR_IOU", "VOTER_MARGIN", "KEPT_MARGIN"):
            with monkeypatch.context() as changed:
                changed.setattr(f"refseg.candidates.voting.{name}", 0.2)
                others.append(settings_of(trays, models).fingerprint)
        assert len({own, *others}) == len(others) + 1
        monkeypatch.undo()
        assert with_preset(typical_threshold=0.9) == own

    def test_a_preset_that_matches_as_published_keeps_near_duplicates(self, trays: fo.Dataset) -> None:
        models = load_models("demo")
        published = dataclasses.replace(models, preset=dataclasses.replace(models.preset, as_published=True))
        assert not settings_of(trays, models).exact
        assert settings_of(trays, published).exact
        assert not settings_of(trays, published, exact=False).exact

    @pytest.mark.parametrize(
        ("changes", "known"),
        [
            ({"clean_masks": False}, "1228054a1764"),
            ({"clean_masks": False, "as_published": True}, "d378a92dd4a4"),
        ],
    )
    def test_indexes_of_masks_as_they_are_keep_the_fingerprint_that_they_had(
        self, trays: fo.Dataset, changes: dict[str, Any], known: str
    ) -> None:
        """What commit cf1524c gave to weights of these names; `paper` is such a preset."""
        models = load_models("demo")
        preset = dataclasses.replace(models.preset, encoder_side=308, vote_masks=False, **changes)
        named = dataclasses.replace(models, preset=preset, revisions={"sam2": "a", "dinov2": "b"})
        assert settings_of(trays, named).fingerprint == known
        cleaning = dataclasses.replace(named, preset=dataclasses.replace(preset, clean_masks=True))
        assert settings_of(trays, cleaning).fingerprint != known
        assert (settings_of(trays, named).clean_masks, settings_of(trays, cleaning).clean_masks) == (False, True)
