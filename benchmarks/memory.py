"""What memory building an index and segmenting take: whether it grows with the number of images, or with their size.

    python -m benchmarks.memory --images 2000

Growth is that of this process's resident memory while it builds an index of so many images and then segments them, once without
the index and once from it, from the first tenth of each on. The images are few files, each under many samples: what is kept of
an image does not depend on that, only the disk's cache is spared. The peak for one large image, and for several in a row that
four threads read, is that of a process of its own, above what it takes once it has done the same with a small image.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
from PIL import Image

import refseg
from benchmarks.report import Figure, as_table, at_most, details
from benchmarks.throughput import tray_prototypes, write_images
from refseg.dataset import SourceSettings, iter_build_index
from refseg.models import load_models
from refseg.prototypes import Prototypes
from refseg.runs import iter_segment

NAME = "refseg-memory"
MODEL = "demo"
NUM_FILES = 50
NUM_MARKS = 10
SMALL = (480, 360)
LARGE = {"12 MP": (4000, 3000), "100 MP": (11600, 8700)}
SUFFIXES = (".jpg", ".png")
IN_A_ROW = 6
WORKERS = 4
MAX_GROWTH_MB = 50
"""Allowed of a run of any length: the allocator does not give everything back."""


def resident_mb() -> float:
    """Resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmRSS"))
    return int(kilobytes) / 1e3


def marks_of(work: Generator[Any, None, Any], num_images: int) -> list[float]:
    """Resident megabytes whenever another tenth of a run is done; images from an index may come several tenths at a time."""
    marks: list[float] = []
    tenths = 0
    for step in work:
        if step.done * NUM_MARKS // num_images > tenths:
            tenths = step.done * NUM_MARKS // num_images
            marks.append(resident_mb())
    return marks


def growth(num_images: int) -> list[Figure]:
    """Build an index and segment, in this process."""
    models = load_models(MODEL)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        paths = write_images(folder, NUM_FILES, SMALL)
        prototypes = tray_prototypes(folder / "trays", models)
        dataset = fo.Dataset(NAME, overwrite=True)
        try:
            samples = [fo.Sample(filepath=paths[number % NUM_FILES]) for number in range(num_images)]
            dataset.add_samples(samples, progress=False)
            del samples
            works = {
                "build_index": lambda: iter_build_index(dataset, models),
                "segment without an index": lambda: iter_segment(
                    dataset, prototypes, "without", sources=SourceSettings(model=models, index=False)
                ),
                "segment from the index": lambda: iter_segment(
                    dataset, prototypes, "from_index", sources=SourceSettings(model=models)
                ),
            }
            figures = []
            for name, work in works.items():
                marks = marks_of(work(), num_images)
                shown = ", ".join(f"{mark:.0f}" for mark in marks)
                title = f"growth of {name} from image {num_images // NUM_MARKS:,} to {num_images:,}"
                figures.append(at_most(title, marks[-1] - marks[0], MAX_GROWTH_MB, "MB", f"MB at each tenth: {shown}"))
            refseg.open_index(dataset, models).delete()
            return figures
        finally:
            dataset.delete()


def write_large(path: Path, size: tuple[int, int]) -> None:
    """A tray of this size, enlarged in strips so that this takes little memory itself."""
    with tempfile.TemporaryDirectory() as place:
        tray = Image.open(write_images(Path(place), 1, SMALL)[0]).convert("RGB")
    image = Image.new("RGB", size)
    strip, scale = 256, tray.height / size[1]
    rng = np.random.default_rng(3)
    for top in range(0, size[1], strip):
        rows = min(strip, size[1] - top)
        part = tray.resize((size[0], rows), Image.Resampling.BILINEAR, box=(0, top * scale, tray.width, (top + rows) * scale))
        grain = rng.integers(-4, 5, (rows, size[0], 1), np.int16)
        image.paste(Image.fromarray((np.asarray(part) + grain).clip(0, 255).astype(np.uint8)), (0, top))
    image.save(path, **({"quality": 90} if path.suffix == ".jpg" else {"compress_level": 1}))


def peak_of(what: str, prototypes_path: str, small: str, paths: list[str]) -> None:
    """In a process of its own: print by how many megabytes it grew at most."""
    models, prototypes = load_models(MODEL), Prototypes.load(prototypes_path)

    def run(files: list[str]) -> None:
        dataset = fo.Dataset()
        try:
            dataset.add_samples([fo.Sample(filepath=path) for path in files], progress=False)
            if what == "build_index":
                report = refseg.build_index(dataset, models, uri=tempfile.mkdtemp(), num_workers=WORKERS, progress=False)
                assert report.num_added == len(files), report
            else:
                found = refseg.segment(
                    dataset, prototypes, model=models, index=False, min_confidence=0.0, num_workers=WORKERS, progress=False
                )
                assert found.num_images == len(files), found
        finally:
            dataset.delete()

    run([small] * 4)
    before = resident_mb()
    run(paths)
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 - before))


def peaks(sizes: dict[str, tuple[int, int]] | None = None) -> list[Figure]:
    """Of large images, one by itself and several in a row."""
    models = load_models(MODEL)
    figures = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        small = write_images(folder, 1, SMALL)[0]
        tray_prototypes(folder / "trays", models).save(folder / "prototypes.safetensors")
        for name, size in (sizes or LARGE).items():
            for suffix in SUFFIXES:
                path = folder / f"large{suffix}"
                write_large(path, size)
                for what, count in (("build_index", 1), ("build_index", IN_A_ROW), ("segment", 1), ("segment", IN_A_ROW)):
                    arguments = [what, str(folder / "prototypes.safetensors"), small, *[str(path)] * count]
                    command = [sys.executable, "-m", "benchmarks.memory", "--peak-of", *arguments]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    many = f"{count} images in a row" if count > 1 else "one image"
                    title = f"peak of {what}, {many} of {name}, {suffix[1:].upper()}"
                    figures.append(Figure(title, float(done.stdout.splitlines()[-1]), "MB"))
    return figures


def measure(num_images: int = 2000) -> list[Figure]:
    """Growth, then peaks."""
    return [*growth(num_images), *peaks()]


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="Measure the memory of long runs and of large images.")
    parser.add_argument("--images", type=int, default=2000, help="images of the long runs")
    parser.add_argument("--only", choices=["growth", "peaks"], help="the other part is left out")
    parser.add_argument("--peak-of", nargs="+", metavar="ARGUMENT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        what, prototypes, small, *paths = options.peak_of
        peak_of(what, prototypes, small, paths)
        return
    figures = growth(options.images) if options.only != "peaks" else []
    figures += peaks() if options.only != "growth" else []
    print(as_table(figures), details(figures), sep="\n")


if __name__ == "__main__":
    main()
