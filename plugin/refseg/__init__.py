"""RefSeg: reference-based instance segmentation without training, in FiftyOne and in Python.

Importing this package loads nothing heavy; each name below loads its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import VERSION

if TYPE_CHECKING:
    from .dataset.drawn_references import SampledReferences, sample_references
    from .dataset.index import DatasetIndex
    from .dataset.index_finding import open_index
    from .dataset.indexing import IndexReport, build_index
    from .dataset.new_references import add_reference
    from .dataset.references import collect_references, tag_references
    from .dataset.reports import IndexStatus, VerifyReport
    from .dataset.store import list_prototypes, load_prototypes, save_prototypes
    from .evaluation.counting import write_counts
    from .evaluation.counts_report import CountsReport
    from .evaluation.evaluating import evaluate
    from .evaluation.report import EvaluationReport
    from .index.image_files import SkippedImage
    from .insight.findings import Suggestion
    from .insight.quality import ReferenceQuality, reference_quality
    from .insight.report import PrototypeReport
    from .matching.settings import MatchSettings
    from .models.loaded import PRESETS, load_models, unload_models
    from .prototypes.building import build_prototypes
    from .prototypes.prototypes import Prototypes
    from .prototypes.vectors import Reference
    from .published.job import BenchmarkJob
    from .published.running import BenchmarkReport, run_benchmark
    from .review.deciding import Decision
    from .review.decisions import accept, fix, reject, relabel, undo
    from .review.merge_report import MergeReport
    from .review.merging import merge_accepted, undo_merge
    from .review.queue import QueueItem, review_queue
    from .review.suggesting import SuggestedReference, suggest_references
    from .runs.changed_objects import ShownChanges, show_changes
    from .runs.heatmaps import HeatmapReport, similarity_heatmap
    from .runs.inspecting import inspect
    from .runs.inspection import InspectedReference, inspect_references, inspection_sheet
    from .runs.known_images import calibrate, mine_negatives
    from .runs.prompting import PromptedMask, segment_prompt
    from .runs.report_fields import delete_fields, write_fields
    from .runs.segment_report import SegmentReport
    from .runs.segmenter import Segmenter
    from .runs.segmenting import segment
    from .runs.similar import SimilarReport, find_similar
    from .runs.update_report import UpdateReport
    from .runs.updating import update

__version__ = VERSION

_HOME = {
    "BenchmarkJob": "published.job",
    "BenchmarkReport": "published.running",
    "CountsReport": "evaluation.counts_report",
    "DatasetIndex": "dataset.index",
    "Decision": "review.deciding",
    "EvaluationReport": "evaluation.report",
    "HeatmapReport": "runs.heatmaps",
    "IndexReport": "dataset.indexing",
    "IndexStatus": "dataset.reports",
    "MatchSettings": "matching.settings",
    "MergeReport": "review.merge_report",
    "InspectedReference": "runs.inspection",
    "PRESETS": "models.loaded",
    "PromptedMask": "runs.prompting",
    "PrototypeReport": "insight.report",
    "Prototypes": "prototypes.prototypes",
    "QueueItem": "review.queue",
    "Reference": "prototypes.vectors",
    "ReferenceQuality": "insight.quality",
    "SampledReferences": "dataset.drawn_references",
    "SegmentReport": "runs.segment_report",
    "Segmenter": "runs.segmenter",
    "SimilarReport": "runs.similar",
    "ShownChanges": "runs.changed_objects",
    "SkippedImage": "index.image_files",
    "SuggestedReference": "review.suggesting",
    "Suggestion": "insight.findings",
    "UpdateReport": "runs.update_report",
    "VerifyReport": "dataset.reports",
    "accept": "review.decisions",
    "add_reference": "dataset.new_references",
    "build_index": "dataset.indexing",
    "build_prototypes": "prototypes.building",
    "calibrate": "runs.known_images",
    "collect_references": "dataset.references",
    "delete_fields": "runs.report_fields",
    "evaluate": "evaluation.evaluating",
    "find_similar": "runs.similar",
    "fix": "review.decisions",
    "inspect": "runs.inspecting",
    "inspect_references": "runs.inspection",
    "inspection_sheet": "runs.inspection",
    "list_prototypes": "dataset.store",
    "load_models": "models.loaded",
    "load_prototypes": "dataset.store",
    "merge_accepted": "review.merging",
    "mine_negatives": "runs.known_images",
    "open_index": "dataset.index_finding",
    "reference_quality": "insight.quality",
    "reject": "review.decisions",
    "relabel": "review.decisions",
    "review_queue": "review.queue",
    "run_benchmark": "published.running",
    "sample_references": "dataset.drawn_references",
    "save_prototypes": "dataset.store",
    "segment": "runs.segmenting",
    "segment_prompt": "runs.prompting",
    "show_changes": "runs.changed_objects",
    "similarity_heatmap": "runs.heatmaps",
    "suggest_references": "review.suggesting",
    "tag_references": "dataset.references",
    "undo": "review.decisions",
    "undo_merge": "review.merging",
    "unload_models": "models.loaded",
    "update": "runs.updating",
    "write_counts": "evaluation.counting",
    "write_fields": "runs.report_fields",
}

__all__ = [
    "PRESETS",
    "BenchmarkJob",
    "BenchmarkReport",
    "CountsReport",
    "DatasetIndex",
    "Decision",
    "EvaluationReport",
    "HeatmapReport",
    "IndexReport",
    "IndexStatus",
    "InspectedReference",
    "MatchSettings",
    "MergeReport",
    "PromptedMask",
    "PrototypeReport",
    "Prototypes",
    "QueueItem",
    "Reference",
    "ReferenceQuality",
    "SampledReferences",
    "SegmentReport",
    "Segmenter",
    "ShownChanges",
    "SimilarReport",
    "SkippedImage",
    "SuggestedReference",
    "Suggestion",
    "UpdateReport",
    "VerifyReport",
    "accept",
    "add_reference",
    "build_index",
    "build_prototypes",
    "calibrate",
    "collect_references",
    "delete_fields",
    "evaluate",
    "find_similar",
    "fix",
    "inspect",
    "inspect_references",
    "inspection_sheet",
    "list_prototypes",
    "load_models",
    "load_prototypes",
    "merge_accepted",
    "mine_negatives",
    "open_index",
    "reference_quality",
    "reject",
    "relabel",
    "review_queue",
    "run_benchmark",
    "sample_references",
    "save_prototypes",
    "segment",
    "segment_prompt",
    "show_changes",
    "similarity_heatmap",
    "suggest_references",
    "tag_references",
    "undo",
    "undo_merge",
    "unload_models",
    "update",
    "write_counts",
    "write_fields",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
