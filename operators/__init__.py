"""What the FiftyOne App loads: one operator per job. Nothing here imports torch or a model until an operator is executed."""

from __future__ import annotations

from typing import Any

from .build_prototypes import BuildPrototypes
from .cancel import Cancel
from .evaluate import Evaluate
from .sample_references import SampleReferences
from .segment import Segment
from .segment_with_references import SegmentWithReferences
from .tag_references import TagReferences


def register(plugin: Any) -> None:
    """Called by FiftyOne; each operator's name is also listed in fiftyone.yml."""
    for operator in (TagReferences, SampleReferences, BuildPrototypes, Segment, Evaluate, SegmentWithReferences, Cancel):
        plugin.register(operator)
