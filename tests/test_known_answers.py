"""Answers that are handed out again are those that the models would give."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from refseg.candidates.proposing import Candidates, propose
from refseg.demo.world import draw_family, render_scene
from refseg.models.loaded import Models
from tests.known_answers import KnownAnswers, digest, handed_out


def assert_same(first: Candidates, second: Candidates) -> None:
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.predicted_iou, second.predicted_iou)
    assert torch.equal(first.features, second.features)


@pytest.fixture
def image() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(render_scene(rng, [draw_family(rng) for _ in range(4)], (120, 160)).image)


def test_the_second_time_nothing_is_computed_and_nothing_differs(models: Models, image: Image.Image) -> None:
    known = KnownAnswers()
    with handed_out(known):
        (first,) = propose([image], models)
        assert known.num_known == 0
        (second,) = propose([image], models)
        assert known.num_known == len(known) > 2  # both encoders, and the prompts in batches
    assert len(first) > 0
    assert_same(first, second)


def test_another_process_is_told(models: Models, image: Image.Image, tmp_path: Path) -> None:
    asked, told = KnownAnswers(tmp_path), KnownAnswers(tmp_path)
    with handed_out(asked):
        (first,) = propose([image], models)
    with handed_out(told):
        (second,) = propose([image], models)
    assert told.num_known == len(told) == len(asked) == len(list(tmp_path.iterdir()))
    assert_same(first, second)


def test_other_pixels_other_weights_and_another_limit_are_other_questions(
    models: Models, image: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = KnownAnswers()
    with handed_out(known):
        (first,) = propose([image], models)
        changed = np.array(image)
        changed[0, 0, 0] ^= 64
        propose([Image.fromarray(changed)], models)
        assert known.num_known == 0
        other = replace(models, dinov2=deepcopy(models.dinov2))
        (again,) = propose([image], other)
        assert_same(first, again)
        asked = known.num_known
        with torch.no_grad():
            next(other.dinov2.parameters()).mul_(2)
        (different,) = propose([image], other)
        assert known.num_known < 2 * asked
        assert not torch.equal(different.features, first.features)
        monkeypatch.setattr("refseg.candidates.decoding.MIN_PREDICTED_IOU", 0.0)
        assert len(propose([image], models)[0]) > len(first)


def test_who_asks_may_write_into_the_answer() -> None:
    known = KnownAnswers()
    answer = known.answer(("key",), lambda: torch.zeros(3))
    answer += 1
    assert known.answer(("key",), lambda: torch.ones(3)).tolist() == [0, 0, 0]


def test_kinds_and_shapes_tell_apart() -> None:
    zeros = torch.zeros(4)
    assert len({digest(zeros), digest(zeros.view(2, 2)), digest(zeros.int()), digest(zeros, zeros)}) == 4
