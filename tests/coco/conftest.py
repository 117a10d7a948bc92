"""A COCO file of one image."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

WIDTH, HEIGHT = 20, 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    return tmp_path


@pytest.fixture
def write(folder: Path) -> Callable[..., Path]:
    """Writes a COCO file: one image, two categories, these annotations; keywords replace its parts."""

    def write_file(*annotations: dict[str, Any], **parts: Any) -> Path:
        content: dict[str, Any] = {
            "images": [{"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
            "categories": [{"id": 3, "name": "star"}, {"id": 5, "name": "tee"}],
            "annotations": [{"id": 11 + i, "image_id": 7, "category_id": 3, **a} for i, a in enumerate(annotations)],
        }
        content.update(parts)
        path = folder / "refs.json"
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
        return path

    return write_file
