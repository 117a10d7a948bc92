"""Weights that a preset is to be loaded from within a block, wherever in it the preset is named. Nothing is loaded here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from ..checks import names_of, refused, require_kind, require_paths
from .presets import FAST

Files = tuple[str | Path | None, str | Path | None]
"""The segmenter's checkpoint or folder, and a DINOv2 folder; None for what is downloaded."""

_chosen: ContextVar[Mapping[str, Files] | None] = ContextVar("local_weights", default=None)


@contextmanager
def local_weights(files: Mapping[str, Files]) -> Iterator[None]:
    """Let presets be loaded from files wherever they are named within a `with` block.

    What is in no block, and other threads, are not touched. Paths that `load_models` is given itself come first.

    Args:
        files: by a preset's name, the segmenter's weights and a DINOv2 folder, see `load_models`; None for what is downloaded.
            They serve the preset's variant with fewer prompts too.

    Example:
        >>> with local_weights({"large": ("/models/sam2.1_hiera_large.pt", None)}):
        ...     files_for("large-fast")
        ('/models/sam2.1_hiera_large.pt', None)
        >>> files_for("large")
        (None, None)

    Raises:
        DatasetError: a value is no pair of paths.
    """
    require_kind(Mapping, "a mapping of a preset's name to two paths", files=files)
    names_of("files", list(files), like="presets' names")
    for name, pair in files.items():
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise refused(f"files[{name!r}]", "a pair of a SAM 2 checkpoint and a DINOv2 folder", pair)
        require_paths(or_none=True, sam2_path=pair[0], dinov2_path=pair[1])
    token = _chosen.set({**(_chosen.get() or {}), **files})
    try:
        yield
    finally:
        _chosen.reset(token)


def files_for(name: str) -> Files:
    """What the blocks around say of a preset."""
    return (_chosen.get() or {}).get(name.removesuffix(FAST), (None, None))
