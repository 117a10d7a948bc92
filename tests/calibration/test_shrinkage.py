"""The choice of shrinkage: by what finds references best that were left out, and only where enough of them say so."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

from refseg.calibration.left_out import leave_one_out
from refseg.calibration.shrinkage import (
    FEWEST_REFERENCES,
    FILLED,
    GAIN,
    SHRINKAGES,
    average_precision,
    choose_shrinkage,
    largest_share,
)
from refseg.matching.gallery import make_gallery
from refseg.matching.second_look import is_whitened, prepare_second_looks
from refseg.matching.settings import MatchSettings
from refseg.matching.similarity import classify
from refseg.matching.whitening import fit_whitening
from refseg.models.loaded import get_preset
from refseg.prototypes.cohort import SHRINKAGE, Cohort
from refseg.prototypes.prototypes import Prototypes
from tests.synthetic import WIDTH, make_full, random_unit, seen_twice
from tests.tolerance import assert_near

DEMO = get_preset("demo")
CLASSES = 3


def with_cohort(axes: slice, noise: float = 0.6) -> Prototypes:
    """24 references in as many images, and a dataset whose candidates differ along some of the axes alone."""
    full = seen_twice(make_full("abcdefghijklmnopqrstuvwx"), noise=noise)
    assert full.cohort is not None
    generator = torch.Generator().manual_seed(3)
    looks = 0.02 * torch.randn(200, 2 * WIDTH, generator=generator)
    looks[:, axes] += torch.randn(200, 2 * WIDTH, generator=generator)[:, axes]
    features = F.normalize(torch.randn(200, WIDTH, generator=generator), dim=-1)
    return replace(full, cohort=replace(full.cohort, features=features.half(), looks=F.normalize(looks, dim=-1).half()))


def chosen(prototypes: Prototypes) -> float:
    cohort = choose_shrinkage(prototypes, DEMO).cohort
    assert cohort is not None
    return cohort.shrinkage


def worth(prototypes: Prototypes, shrinkage: float) -> float:
    assert prototypes.cohort is not None
    found = leave_one_out(replace(prototypes, cohort=replace(prototypes.cohort, shrinkage=shrinkage)), DEMO)
    assert found.looked_twice
    right, total = found.right.numpy(), int((found.truth >= 0).sum())
    by_others = float(average_precision_score(right, found.scores.numpy())) * right.sum() / total
    assert average_precision(found) == pytest.approx(by_others, abs=0.02), "equal scores count otherwise"
    return average_precision(found)


def test_none_where_the_dataset_differs_in_what_tells_classes_apart() -> None:
    prototypes = with_cohort(slice(0, CLASSES))
    assert chosen(prototypes) > SHRINKAGE
    assert worth(prototypes, chosen(prototypes)) >= worth(prototypes, SHRINKAGE) + GAIN


@pytest.mark.parametrize("axes", [slice(0, CLASSES), slice(CLASSES, None), slice(None)], ids=str)
def test_is_the_best_of_all_or_the_default(axes: slice) -> None:
    prototypes = with_cohort(axes)
    found = {value: worth(prototypes, value) for value in SHRINKAGES}
    best = max(found.values())
    own = chosen(prototypes)
    assert found[own] == best if best >= found[SHRINKAGE] + GAIN else own == SHRINKAGE


def test_few_references_choose_nothing() -> None:
    prototypes = with_cohort(slice(0, CLASSES))
    few = prototypes.remove(prototypes.reference_ids[FEWEST_REFERENCES - 1 :])
    assert chosen(few) == SHRINKAGE
    assert choose_shrinkage(replace(prototypes, cohort=None), DEMO).cohort is None


def test_the_choice_counts_and_is_kept(tmp_path: Path) -> None:
    prototypes = with_cohort(slice(0, CLASSES))
    cohort, settings = prototypes.cohort, MatchSettings()
    assert cohort is not None
    for value in (0.3, math.inf):
        own = replace(prototypes, cohort=replace(cohort, shrinkage=value))
        own.save(tmp_path / "own.safetensors")
        kept = Prototypes.load(tmp_path / "own.safetensors")
        assert kept.cohort is not None
        assert kept.cohort.shrinkage == value
        assert is_whitened(kept, settings) == math.isfinite(value)
        assert not is_whitened(kept, MatchSettings(whiten=False))
        second = prepare_second_looks(kept, DEMO, settings, make_gallery(kept, settings))
        assert second is not None
        expected = torch.eye(2 * WIDTH)
        if math.isfinite(value):
            fitted = fit_whitening(cohort.looks.float(), value)
            assert fitted is not None
            expected = fitted.matrix
        assert_near(second.plain.whitening.matrix, expected, at_most=1e-4)


@pytest.mark.parametrize("number", [1, 2, 3, 5, 8])
def test_a_dataset_nearly_as_like_the_class_is_not_full_of_it(number: int) -> None:
    """References at a cosine of about 0.5 to each other, everything else at 0.45 to them: few say nothing, or the truth."""
    generator = torch.Generator().manual_seed(5)
    width, full = 128, 0
    for _ in range(40):
        common, own = F.normalize(torch.randn(2, width, generator=generator), dim=1)
        spread = torch.randn(number + 300, width, generator=generator) / width**0.5
        looks = F.normalize(spread + 0.9 * common, dim=1)
        looks[:number] = F.normalize(spread[:number] + 0.9 * common + 0.45 * own, dim=1)
        prototypes = Prototypes(
            ("gear",),
            looks[:number].clone(),
            torch.zeros(number, dtype=torch.int64),
            tuple(map(str, range(number))),
            "demo",
            "f00",
            looks=looks[:number].half(),
            cohort=Cohort(looks[number:].half(), looks[number:].half(), 100),
        )
        full += largest_share(prototypes) >= FILLED
    assert full <= 4


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6, 0.95])
def test_a_class_is_told_from_strangers_however_much_of_it_there_is(share: float) -> None:
    """A dataset of which one class is rare, and one that it fills, where whitening would leave nothing of it."""
    generator = torch.Generator().manual_seed(7)
    full = seen_twice(make_full("aabbccddeeffgg", labels="0" * 14, classes=("gear",)), noise=0.1)
    assert full.looks is not None
    assert full.cohort is not None
    known = full.looks.float()

    def members(number: int) -> torch.Tensor:
        looks = known[torch.randint(len(known), (number,), generator=generator)]
        return F.normalize(looks + 0.1 * torch.randn(looks.shape, generator=generator), dim=-1)

    number = round(share * 200)
    looks = torch.cat([members(number), random_unit(generator, 200 - number, 2 * WIDTH)]).half()
    features = random_unit(generator, 200, WIDTH).half()
    own = replace(full, negatives=None, cohort=replace(full.cohort, features=features, looks=looks))
    assert largest_share(own) == pytest.approx(0.8 * share, abs=0.1)
    taught, settings = choose_shrinkage(own, DEMO), MatchSettings()
    assert is_whitened(taught, settings) == (largest_share(own) < FILLED)
    second = prepare_second_looks(taught, DEMO, settings, make_gallery(taught, settings))
    assert second is not None
    gears, others = members(100), random_unit(generator, 100, 2 * WIDTH)
    scores = [classify(second.plain.whitening.apply(some), second.plain.gallery).scores for some in (gears, others)]
    assert float((scores[0][:, None] > scores[1]).float().mean()) > 0.95
