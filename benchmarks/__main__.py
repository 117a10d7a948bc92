"""Run every benchmark of speed and size and write one JSON file.

    python -m benchmarks --out bench.json

Takes about half an hour on two cores and, for the largest index, 25 GB of disk; `--quick` leaves out the largest sizes.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import datetime, timezone
from pathlib import Path

from benchmarks import growth, matching_speed, panel_speed, resegment, second_looks, segment_again, stages
from benchmarks.report import as_json, as_table, machine


def main() -> None:
    """Run them one after the other; what is measured is written after each."""
    parser = argparse.ArgumentParser(description="Measure RefSeg.")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument(
        "--quick", action="store_true", help="100 images and 100,000 candidates instead of 1,000 and 10,000,000"
    )
    options = parser.parse_args()
    images, largest = (100, 100_000) if options.quick else (1000, growth.SIZES[-1])
    works = {
        "stages": stages.measure,
        "matching": lambda: [*matching_speed.measure(), *matching_speed.measure_published()],
        "resegment": lambda: resegment.measure(images),
        "second looks": lambda: second_looks.measure(images),
        "segmenting again": lambda: segment_again.measure(10 * images),
        "panel": lambda: panel_speed.measure(panel_speed.SIZES[:1] if options.quick else panel_speed.SIZES),
        "growth": lambda: growth.measure(largest),
    }
    report = {"measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"), "machine": machine(), "figures": {}}
    figures = []
    for name, work in works.items():
        started = time.monotonic()
        print(f"{name} …", flush=True)
        found = work()
        figures += found
        report["figures"][name] = as_json(found)
        options.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        print(f"{as_table(found)}\n({time.monotonic() - started:.0f} s)\n", flush=True)
    missed = [figure.name for figure in figures if figure.reached is False]
    print(f"Written: {options.out}" + (f"; missed: {', '.join(missed)}" if missed else ""))


if __name__ == "__main__":
    main()
