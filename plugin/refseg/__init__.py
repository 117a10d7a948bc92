"""RefSeg: reference-based instance segmentation without training, in FiftyOne and in Python.

Importing this package loads nothing heavy; each name below loads its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .building import build_prototypes
    from .dataset_index import DatasetIndex, IndexStatus, VerifyReport, open_index
    from .decisions import Decision, accept, fix, reject, relabel, undo
    from .evaluation import EvaluationReport, evaluate
    from .heatmaps import HeatmapReport, similarity_heatmap
    from .indexing import IndexReport, SkippedImage, build_index
    from .inspecting import inspect
    from .inspection import InspectedReference, inspect_references, inspection_sheet
    from .known_images import calibrate, mine_negatives
    from .match_settings import MatchSettings
    from .models import PRESETS, load_models, unload_models
    from .prototype_report import PrototypeReport, Suggestion
    from .prototypes import Prototypes
    from .published.job import BenchmarkJob
    from .published.running import BenchmarkReport, run_benchmark
    from .quality import ReferenceQuality, reference_quality
    from .reference_vectors import Reference
    from .references import SampledReferences, collect_references, sample_references, tag_references
    from .report_fields import delete_fields, write_fields
    from .review import QueueItem, review_queue
    from .runs import SegmentReport, segment
    from .segmenter import Segmenter
    from .similar import SimilarReport, find_similar
    from .store import list_prototypes, load_prototypes, save_prototypes
    from .updating import UpdateReport, update

__version__ = "0.1.0"

_HOME = {
    "BenchmarkJob": "published.job",
    "BenchmarkReport": "published.running",
    "DatasetIndex": "dataset_index",
    "Decision": "decisions",
    "EvaluationReport": "evaluation",
    "HeatmapReport": "heatmaps",
    "IndexReport": "indexing",
    "IndexStatus": "dataset_index",
    "MatchSettings": "match_settings",
    "InspectedReference": "inspection",
    "PRESETS": "models",
    "PrototypeReport": "prototype_report",
    "Prototypes": "prototypes",
    "QueueItem": "review",
    "Reference": "reference_vectors",
    "ReferenceQuality": "quality",
    "SampledReferences": "references",
    "SegmentReport": "runs",
    "Segmenter": "segmenter",
    "SimilarReport": "similar",
    "SkippedImage": "indexing",
    "Suggestion": "prototype_report",
    "UpdateReport": "updating",
    "VerifyReport": "dataset_index",
    "accept": "decisions",
    "build_index": "indexing",
    "build_prototypes": "building",
    "calibrate": "known_images",
    "collect_references": "references",
    "delete_fields": "report_fields",
    "evaluate": "evaluation",
    "find_similar": "similar",
    "fix": "decisions",
    "inspect": "inspecting",
    "inspect_references": "inspection",
    "inspection_sheet": "inspection",
    "list_prototypes": "store",
    "load_models": "models",
    "load_prototypes": "store",
    "mine_negatives": "known_images",
    "open_index": "dataset_index",
    "reference_quality": "quality",
    "reject": "decisions",
    "relabel": "decisions",
    "review_queue": "review",
    "run_benchmark": "published.running",
    "sample_references": "references",
    "save_prototypes": "store",
    "segment": "runs",
    "similarity_heatmap": "heatmaps",
    "tag_references": "references",
    "undo": "decisions",
    "unload_models": "models",
    "update": "updating",
    "write_fields": "report_fields",
}

__all__ = [
    "PRESETS",
    "BenchmarkJob",
    "BenchmarkReport",
    "DatasetIndex",
    "Decision",
    "EvaluationReport",
    "HeatmapReport",
    "IndexReport",
    "IndexStatus",
    "InspectedReference",
    "MatchSettings",
    "PrototypeReport",
    "Prototypes",
    "QueueItem",
    "Reference",
    "ReferenceQuality",
    "SampledReferences",
    "SegmentReport",
    "Segmenter",
    "SimilarReport",
    "SkippedImage",
    "Suggestion",
    "UpdateReport",
    "VerifyReport",
    "accept",
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
    "similarity_heatmap",
    "tag_references",
    "undo",
    "unload_models",
    "update",
    "write_fields",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
