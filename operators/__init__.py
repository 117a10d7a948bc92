"""What the FiftyOne App loads: one operator per job. Nothing here imports torch or a model until an operator is executed."""

from __future__ import annotations

from typing import Any

from .build_index import BuildIndex
from .build_prototypes import BuildPrototypes
from .calibrate import Calibrate
from .cancel import Cancel
from .delete_index import DeleteIndex
from .evaluate import Evaluate
from .find_similar import FindSimilar
from .index_status import IndexStatus
from .inspect_prototypes import InspectPrototypes
from .learn import Learn
from .mark_empty import MarkEmpty
from .merge_accepted import MergeAccepted
from .mine_negatives import MineNegatives
from .panel.panel import ReferenceSegmentation
from .review import Review
from .sample_references import SampleReferences
from .segment import Segment
from .segment_with_references import SegmentWithReferences
from .show_heatmap import ShowHeatmap
from .show_object import ShowObject
from .suggest_references import SuggestReferences
from .tag_references import TagReferences
from .update import Update
from .write_counts import WriteCounts

OPERATORS = (
    *(TagReferences, ShowObject, SampleReferences, BuildPrototypes, Segment, Evaluate, SegmentWithReferences),
    *(BuildIndex, IndexStatus, DeleteIndex, FindSimilar, Cancel),
    *(InspectPrototypes, ShowHeatmap),
    *(Learn, Review, SuggestReferences, Update),
    *(MarkEmpty, Calibrate, MineNegatives),
    *(WriteCounts, MergeAccepted),
)


def register(plugin: Any) -> None:
    """Called by FiftyOne; each operator's name is also listed in fiftyone.yml."""
    for operator in OPERATORS:
        plugin.register(operator)
    plugin.register(ReferenceSegmentation)
