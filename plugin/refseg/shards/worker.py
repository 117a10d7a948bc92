"""A process of Ray's that holds the models and computes shard after shard. It knows no FiftyOne and no MongoDB."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

import pyarrow as pa
import torch

from ..errors import RefSegError
from ..index import FileState, ImageFile, IndexSettings
from ..models import Files, Preset, load_models, registered
from .writing import ShardWriter


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is told.

    Attributes:
        uri: of the index.
        settings: of the index.
        preset: of the models.
        files: weights on the worker's machine; None for what is downloaded.
        device: None for the best there is.
        dtype: in which the models run, such as "float32".
        storage_options: for an object store, as Lance takes them.
        cores: threads of PyTorch's, and of decoding.
    """

    uri: str
    settings: IndexSettings
    preset: Preset
    files: Files = (None, None)
    device: str | None = None
    dtype: str = "float32"
    storage_options: dict[str, str] | None = None
    cores: int | None = None


class Worker:
    """One actor: models are loaded once, then each call makes a shard of the images it is given.

    Args:
        about: settings.
    """

    def __init__(self, about: WorkerSettings) -> None:
        if about.cores is not None:
            torch.set_num_threads(about.cores)
        self._error: str | None = None
        self._writer: ShardWriter | None = None
        try:
            with registered(about.preset):
                models = load_models(
                    about.preset.name,
                    device=about.device,
                    dtype=getattr(torch, about.dtype),
                    sam2_path=about.files[0],
                    dinov2_path=about.files[1],
                )
            if models.revisions != about.settings.revisions:
                raise RefSegError(f"it has other weights of {about.preset.name!r} than the driver")
            self._writer = ShardWriter(about.uri, about.settings, models, about.storage_options, about.cores)
        except Exception as error:
            # Raised here it would be tried again for ever, and told in a hundred lines.
            self._error = f"{os.uname().nodename}: {error}"

    def __call__(self, block: pa.Table) -> pa.Table:
        """A table of one row, the record of the shard, of a table made by `block_of`."""
        if self._writer is None:
            return answer_of(None, self._error)
        try:
            return answer_of(self._writer.write(images_of_block(block)).to_json(), None)
        except RefSegError as error:
            return answer_of(None, str(error))


def block_of(images: list[ImageFile]) -> pa.Table:
    """A block of Ray Data: a row an image."""
    return pa.table(
        {
            "sample_id": [image.sample_id for image in images],
            "path": [image.path for image in images],
            "state": [json.dumps(asdict(image.state)) for image in images],
        }
    )


def images_of_block(block: pa.Table) -> list[ImageFile]:
    """The images of a block."""
    rows = block.select(["sample_id", "path", "state"]).to_pylist()
    return [ImageFile(row["sample_id"], row["path"], FileState(**json.loads(row["state"]))) for row in rows]


def answer_of(shard: str | None, error: str | None) -> pa.Table:
    """What a worker hands back."""
    return pa.table({"shard": pa.array([shard], pa.string()), "error": pa.array([error], pa.string())})
