"""What an index of many images takes, in bytes and hours: arithmetic, no measurement.

    python -m benchmarks.scale --rate 20 --share 0.9

Hours are images over rate, GPUs and share; bytes are those that the preset takes for an image by
`refseg.index.bytes_per_image`, which was measured on the demo's worlds. The rate of a GPU is assumed, and so is the share of it
that reading and writing leave.
"""

from __future__ import annotations

import argparse

from refseg.index import bytes_per_image
from refseg.models import get_preset
from refseg.printing import as_size

IMAGES, GPUS = (10**6, 10**8), (1, 8, 64)


def table(model: str, rate: float, share: float) -> str:
    """Markdown: a row for each number of images.

    Args:
        model: a preset's name.
        rate: images a second and GPU, assumed.
        share: of the rate that is left beside reading and writing, assumed.

    Example:
        >>> print(table("large", 20, 0.9).splitlines()[-1])
        | 100,000,000 | 29462.4 GB | 1,543 h | 193 h | 24 h |
    """
    each = bytes_per_image(get_preset(model))
    rows = [
        f"| images, `{model}` | index | " + " | ".join(f"{number} GPU{'s' if number > 1 else ''}" for number in GPUS) + " |"
    ]
    rows.append("| --- " * (2 + len(GPUS)) + "|")
    for number in IMAGES:
        hours = [number / (rate * share * gpus) / 3600 for gpus in GPUS]
        shown = [f"{one:,.1f} h" if one < 10 else f"{one:,.0f} h" for one in hours]
        rows.append(f"| {number:,} | {as_size(number * each)} | {' | '.join(shown)} |")
    return "\n".join(rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What an index of many images takes.")
    parser.add_argument("--model", default="large")
    parser.add_argument("--rate", type=float, default=20.0, help="images a second and GPU (%(default)s)")
    parser.add_argument("--share", type=float, default=0.9, help="of it that reading and writing leave (%(default)s)")
    options = parser.parse_args()
    print(table(options.model, options.rate, options.share))


if __name__ == "__main__":
    main()
