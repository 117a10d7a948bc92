"""RefSeg: reference-based instance segmentation without training, in FiftyOne and in Python.

Importing this package loads nothing heavy; each name below loads its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dataset_index import DatasetIndex, IndexStatus, VerifyReport, open_index
    from .evaluation import EvaluationReport, evaluate
    from .indexing import IndexReport, SkippedImage, build_index
    from .models import PRESETS, load_models, unload_models
    from .prototypes import Prototypes, Reference, build_prototypes
    from .references import SampledReferences, collect_references, sample_references, tag_references
    from .runs import SegmentReport, segment
    from .segmenter import Segmenter
    from .similar import SimilarReport, find_similar
    from .store import list_prototypes, load_prototypes, save_prototypes

__version__ = "0.1.0"

_HOME = {
    "DatasetIndex": "dataset_index",
    "EvaluationReport": "evaluation",
    "IndexReport": "indexing",
    "IndexStatus": "dataset_index",
    "PRESETS": "models",
    "Prototypes": "prototypes",
    "Reference": "prototypes",
    "SampledReferences": "references",
    "SegmentReport": "runs",
    "Segmenter": "segmenter",
    "SimilarReport": "similar",
    "SkippedImage": "indexing",
    "VerifyReport": "dataset_index",
    "build_index": "indexing",
    "build_prototypes": "prototypes",
    "collect_references": "references",
    "evaluate": "evaluation",
    "find_similar": "similar",
    "list_prototypes": "store",
    "load_models": "models",
    "load_prototypes": "store",
    "open_index": "dataset_index",
    "sample_references": "references",
    "save_prototypes": "store",
    "segment": "runs",
    "tag_references": "references",
    "unload_models": "models",
}

__all__ = [
    "PRESETS",
    "DatasetIndex",
    "EvaluationReport",
    "IndexReport",
    "IndexStatus",
    "Prototypes",
    "Reference",
    "SampledReferences",
    "SegmentReport",
    "Segmenter",
    "SimilarReport",
    "SkippedImage",
    "VerifyReport",
    "build_index",
    "build_prototypes",
    "collect_references",
    "evaluate",
    "find_similar",
    "list_prototypes",
    "load_models",
    "load_prototypes",
    "open_index",
    "sample_references",
    "save_prototypes",
    "segment",
    "tag_references",
    "unload_models",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
