from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from refseg.coco.files import CocoDataset, CocoImage
from refseg.coco.frame_hints import framed_images


def test_images_that_are_turned_with_what_is_in_them(tmp_path: Path) -> None:
    for name, orientation in (("upright.png", 1), ("turned.png", 6), ("empty.png", 3)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (20, 12)).save(tmp_path / name, exif=exif)
    (tmp_path / "broken.png").write_bytes(b"no image")
    names = ("upright.png", "turned.png", "empty.png", "broken.png", "gone.png", "sizeless.png")
    images = {n: CocoImage(n, name, None if name == "sizeless.png" else (20, 12)) for n, name in enumerate(names)}
    objects = [{"image_id": n, "category_id": 1, "bbox": [1, 2, 3, 4]} for n in (0, 1, 3, 4, 5)]
    crowd = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1}
    bare = {"image_id": 1, "category_id": 1, "segmentation": [[1, 1, 2, 1, 2, 2]]}
    targets = CocoDataset("t.json", dict(images), {1: "star"}, (*objects, crowd, bare))
    results = [{"image_id": n, "bbox": [5, 6, 1, 2]} for n in (0, 1, 1)]
    (framed,) = framed_images(targets, tmp_path, results)
    assert (framed.orientation, framed.image_hw) == (6, (20, 12))
    np.testing.assert_array_equal(framed.truth, [[1, 2, 4, 6]])
    np.testing.assert_array_equal(framed.found, [[5, 6, 6, 8]] * 2)
