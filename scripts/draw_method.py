"""Draw docs/how_it_works.png from a real run of the demo preset: an image, its candidates, the references, the match.

python scripts/draw_method.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from refseg.candidates import crop_corners, propose
from refseg.demo.dataset import CLASSES, draw_classes, draw_tray
from refseg.images import DrawnObject, draw_objects, fit, line_of_text, sheet
from refseg.matching import Instances, match
from refseg.models import load_models
from refseg.prototypes import Reference, build_prototypes

OUT = Path(__file__).resolve().parent.parent / "docs" / "how_it_works.png"
WIDTH, HEIGHT = 384, 288
SHOTS = 3


def main() -> None:
    """Draw the figure."""
    rng = np.random.default_rng(7)
    families = draw_classes(rng)
    models = load_models("demo")
    references: list[Reference] = []
    crops: dict[str, list[Image.Image]] = {name: [] for name in CLASSES}
    with tempfile.TemporaryDirectory() as folder:
        while any(len(shown) < SHOTS for shown in crops.values()):
            scene, names = draw_tray(rng, families, empty=False)
            path = Path(folder) / f"{len(references)}.png"
            picture = Image.fromarray(scene.image)
            picture.save(path)
            for mask, name in zip(scene.masks, names, strict=True):
                if name is not None and len(crops[name]) < SHOTS:
                    rows, columns = np.nonzero(mask)
                    x0, y0, x1, y1 = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                    box = (float(x0), float(y0), float(x1), float(y1))
                    reference_id = f"{name} {len(crops[name])}"
                    references.append(Reference(reference_id, name, str(path), box, mask[y0:y1, x0:x1]))
                    crops[name].append(fit(picture.crop(crop_corners(box, (picture.height, picture.width))), 60, 60))
        prototypes = build_prototypes(references, models, progress=False)
    scene, _ = draw_tray(rng, families, empty=False)
    image = Image.fromarray(scene.image)
    candidates = propose([image], models)[0]
    everything = match(candidates, prototypes.matrix, max_detections=400)
    found = match(candidates, prototypes.matrix, min_score=models.preset.min_confidence)
    panels = [
        ("An image", image),
        (f"A. {len(candidates)} candidates (SAM 2)", draw_objects(image, _drawn(everything, ()))),
        (
            f"B. {SHOTS} references a class (DINOv2)",
            sheet([[crops[name][shot] for name in CLASSES] for shot in range(SHOTS)], 4),
        ),
        ("C. Matched, thinned, scored", draw_objects(image, _drawn(found, prototypes.classes))),
    ]
    blocks = [sheet([[line_of_text(title, WIDTH)], [fit(panel, WIDTH, HEIGHT)]], 4) for title, panel in panels]
    OUT.parent.mkdir(exist_ok=True)
    sheet([blocks[:2], blocks[2:]]).save(OUT)
    print(f"Written: {OUT}")


def _drawn(instances: Instances, classes: Sequence[str]) -> list[DrawnObject]:
    """One colour a class, or a mask where there are no classes."""
    objects = []
    for index, (mask, box) in enumerate(zip(instances.masks, instances.boxes.tolist(), strict=True)):
        label = int(instances.labels[index])
        caption = f"{classes[label]} {float(instances.scores[index]):.2f}" if classes else ""
        x0, y0, x1, y1 = box
        objects.append(DrawnObject((x0, y0, x1, y1), mask.numpy(), label if classes else index, caption))
    return objects[::-1]


if __name__ == "__main__":
    main()
