"""Where candidates are to come from, as whoever asks for them says it: one value, from the public call to the models."""

from __future__ import annotations

from dataclasses import dataclass

from ..checks import require_flags, require_kind, require_whole
from ..images import PLAIN, PixelSettings
from ..models import Models, require_model
from .index import DatasetIndex


@dataclass(frozen=True)
class SourceSettings:
    """Where the candidates of a dataset's images are to come from.

    Attributes:
        model: preset's name or loaded models; None takes the preset that built the prototypes.
        index: False neither reads nor fills an index; or one opened by open_index.
        tiles: whether images are looked at in tiles; None takes the index that there is, or none.
        num_workers: threads that decode images, 0 for none; None as many as suit the machine.
        pixels: how deep values and bands are read; what it leaves open follows the prototypes and the index.
    """

    model: str | Models | None = None
    index: bool | DatasetIndex = True
    tiles: bool | None = None
    num_workers: int | None = None
    pixels: PixelSettings = PLAIN

    def __post_init__(self) -> None:
        require_model(self.model, or_none=True)
        require_kind((bool, DatasetIndex), "True, False, or an index opened by open_index", index=self.index)
        require_flags(or_none=True, tiles=self.tiles)
        require_whole(0, or_none=True, num_workers=self.num_workers)

    def preset_for(self, built_by: str) -> str:
        """Name of the preset that is asked for; without one, that which built the prototypes."""
        return self.model.preset.name if isinstance(self.model, Models) else self.model or built_by
