"""How candidates are matched with prototypes: what goes past the paper, each choice independent of the others. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import NoneType
from typing import Any, Literal, TypeAlias, get_args

from ..checks import require_flags, require_kind
from ..errors import DatasetError

ClassSimilarity: TypeAlias = Literal["mean", "nearest", "clusters"]
Overlaps: TypeAlias = Literal["merge", "diffusion"]
SecondLookChoice: TypeAlias = bool | Literal["known"]

PROBABILITIES, SIMILARITIES = "probabilities", "similarities"
"""What the scores of a run are; runs of earlier versions, which do not say it, wrote similarities."""
HALF = 0.5
"""An instance of this probability is as likely right as wrong: the threshold of every class where scores are probabilities."""
KNOWN: Literal["known"] = "known"
"""Looks again at nothing that nobody has looked at."""
SECOND_LOOK_WORDS: dict[SecondLookChoice, str] = {True: "always", KNOWN: "known", False: "never"}
"""What forms call the choices of second_look."""
CHOICES: dict[str, tuple[str, ...]] = {"class_similarity": get_args(ClassSimilarity), "overlaps": get_args(Overlaps)}
"""What can be chosen where it is not yes or no."""


@dataclass(frozen=True)
class MatchSettings:
    """How candidates are compared with classes, and what a mask's score loses to masks around it (method.md, "Past the paper").

    Attributes:
        negatives: whether what resembles a negative more than the class scores lower; without negatives it changes nothing.
        background: whether masks that resemble the surroundings in the crops of references more than any class are dropped.
        class_similarity: "mean" compares with one prototype a class, the mean of its references; "nearest" with the three
            references of the class that are most similar; "clusters" with the most similar of up to four groups of them.
        scenes: whether a class also looks like the candidates that show its references in their own images, where these are
            known, and not only like the references in their crops: candidates see their objects as small as these do.
        overlaps: how masks inside better ones lose score: "merge", as published, or "diffusion" along chains of masks.
        calibrated: whether a score is the probability of being right, where the prototypes know what lies around their
            references, see `refseg.calibration`; else it is a similarity, and the preset's threshold counts.
        second_look: whether the best candidates of each image are looked at again, as crops, and scored by that, where the
            prototypes know enough of the dataset, see `refseg.matching.second_look`. "known" takes what an index holds
            already and looks at nothing anew.
        whiten: whether second looks are compared by what sets them apart from the rest of the dataset, see
            `refseg.matching.whitening`.

    Raises:
        DatasetError: a choice that there is none of.
    """

    negatives: bool = True
    background: bool = False
    class_similarity: ClassSimilarity = "mean"
    scenes: bool = True
    overlaps: Overlaps = "merge"
    calibrated: bool = True
    second_look: SecondLookChoice = True
    whiten: bool = True

    def __post_init__(self) -> None:
        flags = ("negatives", "background", "scenes", "calibrated", "whiten")
        require_flags(**{name: getattr(self, name) for name in flags})
        if not isinstance(self.second_look, bool) and self.second_look != KNOWN:
            raise DatasetError(f"second_look must be True, False or {KNOWN!r}, not {self.second_look!r}.")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise DatasetError(f"{name} must be one of {', '.join(map(repr, known))}, not {getattr(self, name)!r}.")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> MatchSettings:
        """Settings from a run's record or a form; names it does not know are ignored, those left out are as by default."""
        known = {entry.name for entry in fields(cls)}
        given = {name: value for name, value in values.items() if name in known and value is not None}
        # A form can offer words alone.
        words = {word: value for value, word in SECOND_LOOK_WORDS.items()}
        if given.get("second_look") in words:
            given["second_look"] = words[given["second_look"]]
        return cls(**given)

    def as_dict(self) -> dict[str, Any]:
        """For a run's record."""
        return asdict(self)


PUBLISHED = MatchSettings(
    background=False,
    class_similarity="mean",
    scenes=False,
    overlaps="merge",
    calibrated=False,
    second_look=False,
    whiten=False,
)
"""As in the paper, which knows no negatives: where nobody gives any, they change nothing."""


def settings_for(as_published: bool, chosen: MatchSettings | None = None) -> MatchSettings:
    """What was chosen, else what is the default of a preset that matches as published, or of one that does not."""
    require_kind((MatchSettings, NoneType), "MatchSettings or None", matching=chosen)
    return chosen or (PUBLISHED if as_published else MatchSettings())
