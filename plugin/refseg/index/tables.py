"""What the rows of a candidate index hold, and their way into Arrow tables and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..candidates import PIXELS_A_CELL, PackedCandidates, fine_grid_side
from ..images import PixelSettings
from ..printing import counted

METADATA_KEY = b"refseg_index"
FORMAT = 1
FORMAT_WITH_TILES = 2
"""Of an index with tiles alone, so that earlier versions, which know none, can still read every other index."""
FORMAT_WITH_FLOATS = 3
"""Of an exact index, likewise: the edges of its masks, and of the published profile the features, are kept in float32."""
FORMAT_WITH_PIXELS = 4
"""Of an index of images whose pixels need settings, likewise."""
FORMAT_WITH_CLEAN_MASKS = 5
"""Of an index of clean masks, likewise."""
NEWEST_FORMAT = FORMAT_WITH_CLEAN_MASKS

# The compression that makes each smallest; Lance would leave them as they are.
_CODE = pa.field("code", pa.binary(), metadata={"lance-encoding:compression": "fsst"})
_EDGE = pa.field("edge", pa.binary(), metadata={"lance-encoding:compression": "zstd"})

_IMAGE_FIELDS = (
    ("sample_id", pa.string()),
    ("key", pa.int64()),
    ("name", pa.string()),
    ("size", pa.int64()),
    ("mtime_ns", pa.int64()),
    ("sha256", pa.string()),
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("num_candidates", pa.int32()),
    ("builder", pa.int64()),
)
LATER_IMAGE_FIELDS = (("ctime_ns", pa.int64()), ("orientation", pa.int32()), ("sequence", pa.int64()))
"""Columns that tables of earlier versions lack, and get when they are written to; what such a version adds has none there."""
LATER_CANDIDATE_FIELDS = (("row", pa.int32()),)
"""Likewise of the table of candidates."""


@dataclass(frozen=True)
class IndexSettings:
    """What the candidates of an index have in common; see `dataset.index_settings.settings_of`.

    Attributes:
        model: the preset's name.
        fingerprint: of both models and of how the segmenter is asked.
        encoder: the encoder's fingerprint alone; prototypes of the same one can be compared with these candidates.
        revisions: SHA-256 of both models' weights, by name.
        exact: near-duplicates are kept.
        grid_side: M.
        feature_width: C.
        dataset_id: of the dataset whose samples the rows name.
        tiles: images were looked at in tiles: masks lie on the fine grid of each image.
        float_features: features are kept in float32, as published, and not rounded to half precision.
        pixels: how images of more than 8 bits, or more than three bands, were read, as PixelSettings.as_lists has it; None
            where nothing is said.
        clean_masks: small islands and holes were taken out of the masks.
    """

    model: str
    fingerprint: str
    encoder: str
    revisions: dict[str, str]
    exact: bool
    grid_side: int
    feature_width: int
    dataset_id: str
    tiles: bool = False
    float_features: bool = False
    pixels: list[list[float] | list[int] | None] | None = None
    clean_masks: bool = False

    @property
    def pixel_settings(self) -> PixelSettings:
        """How images were read."""
        return PixelSettings.from_lists(self.pixels)

    @property
    def format(self) -> int:
        """Of the tables that hold such candidates."""
        if self.clean_masks:
            return FORMAT_WITH_CLEAN_MASKS
        if self.pixels is not None:
            return FORMAT_WITH_PIXELS
        return FORMAT_WITH_FLOATS if self.exact or self.float_features else FORMAT_WITH_TILES if self.tiles else FORMAT

    @property
    def feature_dtype(self) -> torch.dtype:
        """In which features are kept."""
        return torch.float32 if self.float_features else torch.float16

    def grid_side_of(self, image_hw: tuple[int, int]) -> int:
        """Cells a side of the grid on which the masks of an image of this height and width lie."""
        return fine_grid_side(image_hw, self.grid_side * PIXELS_A_CELL) if self.tiles else self.grid_side


@dataclass(frozen=True)
class FileState:
    """What tells whether an image file has changed.

    Attributes:
        name: of the file, without its folder: a dataset may move.
        size: bytes.
        mtime_ns: time of the last change, nanoseconds.
        sha256: of its bytes, or "" where nobody asked for it.
        ctime_ns: time of the last change of the file or of what the system knows of it, nanoseconds; 0 where unknown. Another
            one proves nothing, but says when to look again.
        orientation: that the file says, 1 to 8; 0 where nobody has looked.
    """

    name: str
    size: int
    mtime_ns: int
    sha256: str = ""
    ctime_ns: int = 0
    orientation: int = 0


@dataclass(frozen=True)
class IndexedImage:
    """One image in the index.

    Attributes:
        sample_id: FiftyOne's.
        key: of its candidates; a new one each time the image is indexed.
        file: the state of its file when its candidates were computed.
        image_hw: height and width of the upright image.
        num_candidates: how many there are.
        builder: number of the process that wrote it.
    """

    sample_id: str
    key: int
    file: FileState
    image_hw: tuple[int, int]
    num_candidates: int
    builder: int


@dataclass(frozen=True)
class IndexChunk:
    """Candidates of some images, one image after the other.

    Attributes:
        images: the images.
        starts: (n + 1,) row of the first candidate of each image, and the number of rows.
        features: (N, C) float32.
        rows: the other columns, as an Arrow table; without any where only features were asked for.
        settings: of the index.
    """

    images: tuple[IndexedImage, ...]
    starts: NDArray[np.int64]
    features: Tensor
    rows: pa.Table
    settings: IndexSettings

    def __repr__(self) -> str:
        images = counted(len(self.images), "image")
        return f"IndexChunk({counted(len(self.features), 'candidate')} of {images}; model {self.settings.model!r})"

    def candidates(self, number: int) -> PackedCandidates:
        """The candidates of one of the images."""
        start, stop = int(self.starts[number]), int(self.starts[number + 1])
        codes, edges, boxes, predicted_iou = self._columns
        return PackedCandidates(
            codes.slice(start, stop - start),
            edges.slice(start, stop - start),
            boxes[start:stop],
            predicted_iou[start:stop],
            self.features[start:stop],
            self.images[number].image_hw,
            self.settings.grid_side_of(self.images[number].image_hw),
        )

    @cached_property
    def _columns(self) -> tuple[Any, Any, Tensor, Tensor]:
        """Codes, edges, boxes and predicted IoU of all candidates."""
        boxes = _flat(column_of(self.rows, "box")).astype(np.float32).reshape(-1, 4)
        predicted_iou = torch.from_numpy(_flat(column_of(self.rows, "predicted_iou")).copy())
        return column_of(self.rows, "code"), column_of(self.rows, "edge"), torch.from_numpy(boxes), predicted_iou


def images_schema(settings: IndexSettings) -> pa.Schema:
    """Columns of the table of images; the settings travel with it."""
    return _with_settings((*_IMAGE_FIELDS, *LATER_IMAGE_FIELDS), settings)


def candidates_schema(settings: IndexSettings) -> pa.Schema:
    """Columns of the table of candidates; the settings travel with it."""
    fields = (
        ("image", pa.int64()),
        ("box", pa.list_(pa.uint16(), 4)),
        ("predicted_iou", pa.float32()),
        _CODE,
        _EDGE,
        ("feature", pa.list_(pa.float32() if settings.float_features else pa.float16(), settings.feature_width)),
        *LATER_CANDIDATE_FIELDS,
    )
    return _with_settings(fields, settings)


def read_settings(schema: pa.Schema) -> tuple[int, IndexSettings | None]:
    """The format of a table and its settings; 0 and None for a table of another kind, None for a format that is newer."""
    try:
        about = json.loads((schema.metadata or {})[METADATA_KEY])
        version = int(about.pop("format"))
        return version, IndexSettings(**about) if version <= NEWEST_FORMAT else None
    except (KeyError, TypeError, ValueError):
        return 0, None


def images_table(images: Sequence[IndexedImage], settings: IndexSettings, sequence: int) -> pa.Table:
    """Rows of the table of images, all written at once: later than every row of a lower sequence number."""
    rows = [
        (
            *(image.sample_id, image.key, image.file.name, image.file.size, image.file.mtime_ns, image.file.sha256),
            *(*image.image_hw, image.num_candidates, image.builder, image.file.ctime_ns, image.file.orientation, sequence),
        )
        for image in images
    ]
    fields = (*_IMAGE_FIELDS, *LATER_IMAGE_FIELDS)
    columns = [pa.array(column, kind) for column, (_, kind) in zip(zip(*rows, strict=True), fields, strict=True)]
    return pa.Table.from_arrays(columns, schema=images_schema(settings))


def read_images(table: pa.Table) -> list[IndexedImage]:
    """The images of a table, in the order of its rows."""
    columns = [table[name].to_pylist() for name, _ in _IMAGE_FIELDS]
    columns += [
        table[name].to_pylist() if name in table.column_names else [None] * len(table) for name in ("ctime_ns", "orientation")
    ]
    return [
        IndexedImage(
            *(sample_id, key, FileState(name, size, mtime_ns, sha256, ctime_ns or 0, orientation or 0)),
            *((height, width), num_candidates, builder),
        )
        for sample_id, key, name, size, mtime_ns, sha256, height, width, num_candidates, builder, ctime_ns, orientation in zip(
            *columns, strict=True
        )
    ]


def sequences_of(table: pa.Table) -> NDArray[np.int64]:
    """When each row of a table of images was written, as numbers that rise; those of one write have the same.

    Merging files may move rows behind later ones, so their order alone does not tell. A version that writes no numbers
    puts its rows behind those that are there.
    """
    if "sequence" not in table.column_names:
        return np.zeros(len(table), np.int64)
    numbers = table["sequence"]
    highest_before: NDArray[np.int64] = np.maximum.accumulate(numbers.fill_null(0).to_numpy())
    return np.where(numbers.is_null().to_numpy(), highest_before, numbers.fill_null(0).to_numpy())


def candidates_table(images: Sequence[IndexedImage], packed: Sequence[PackedCandidates], settings: IndexSettings) -> pa.Table:
    """Rows of the table of candidates."""
    counts = [len(candidates) for candidates in packed]
    boxes = torch.cat([candidates.boxes for candidates in packed]).numpy().astype(np.uint16)
    features = torch.cat([candidates.features.to(settings.feature_dtype) for candidates in packed]).numpy()
    columns = [
        pa.array(np.repeat([image.key for image in images], counts), pa.int64()),
        pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel()), 4),
        pa.array(torch.cat([candidates.predicted_iou for candidates in packed]).numpy()),
        pa.concat_arrays([candidates.codes for candidates in packed]),
        pa.concat_arrays([candidates.edges for candidates in packed]),
        pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), settings.feature_width),
        pa.array(np.concatenate([np.arange(count, dtype=np.int32) for count in counts])),
    ]
    return pa.Table.from_arrays(columns, schema=candidates_schema(settings))


def features_of(table: pa.Table, settings: IndexSettings) -> Tensor:
    """(N, C) float32 features."""
    column = column_of(table, "feature")
    if not len(column):
        return torch.empty(0, settings.feature_width)
    features: Tensor = torch.utils.dlpack.from_dlpack(column.flatten())
    # Here, because chunks are read ahead: it costs whoever matches them no time.
    return features.reshape(-1, settings.feature_width).float()


def _with_settings(fields: Sequence[Any], settings: IndexSettings) -> pa.Schema:
    about = {"format": settings.format, **asdict(settings)}
    # Earlier versions take no setting that they do not know.
    for name in ("tiles", "float_features", "pixels", "clean_masks"):
        if not about[name]:
            del about[name]
    return pa.schema(list(fields), metadata={METADATA_KEY: json.dumps(about).encode()})


def column_of(table: pa.Table, name: str) -> Any:
    """A column of a table without chunks."""
    column = table[name]
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _flat(column: Any) -> NDArray[Any]:
    values = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    array: NDArray[Any] = values.to_numpy()
    return array
