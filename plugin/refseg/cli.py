"""The command `refseg`: COCO files in and out, and the demo. Errors are one line on stderr and exit code 2.

Nothing heavy is imported before it is known what to do; `refseg coco` never imports FiftyOne, except to download a SAM 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from . import __version__
from .errors import RefSegError

DESCRIPTION = "Find and segment objects by example: one to thirty references in, instance masks out. No training."
COCO_DESCRIPTION = (
    "Segment a folder of images with the objects of a COCO file as references, and write COCO results. Without --targets "
    "every image under --images is segmented, and what the ids mean is written beside the results."
)


class UsageError(RefSegError):
    """An argument that cannot be."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving: main prints all errors alike."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 2 after an error, 130 when interrupted."""
    parser = build_parser()
    try:
        arguments = parser.parse_args(argv)
        return _run(arguments)
    except RefSegError as error:
        return _fail(str(error))
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        return _fail(f"{named}{error.strerror or error}")
    except KeyboardInterrupt:
        print("refseg: interrupted", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The arguments of every subcommand."""
    parser = _Parser(prog="refseg", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"refseg {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="coco | demo")
    coco = commands.add_parser("coco", help="segment images with references from a COCO file", description=COCO_DESCRIPTION)
    _add_coco_arguments(coco)
    demo = commands.add_parser(
        "demo", help="the whole loop on 60 synthetic images", description="The whole loop on 60 synthetic images."
    )
    demo.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="for the report and picture (%(default)s)")
    demo.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _add_coco_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of images")
    files.add_argument("--references", type=Path, required=True, metavar="JSON", help="COCO file; masks, or boxes alone")
    files.add_argument("--targets", type=Path, metavar="JSON", help="COCO file of the images to segment")
    files.add_argument("--out", type=Path, required=True, metavar="JSON", help="where the results go")
    files.add_argument("--report", type=Path, metavar="JSON", help="where counts, times, skips and scores go")
    files.add_argument("--prototypes", type=Path, metavar="SAFETENSORS", help="where the prototypes go, to be used again")
    model = parser.add_argument_group("model")
    model.add_argument("--model", default="large", metavar="PRESET", help="demo, tiny, small, base, large, paper (%(default)s)")
    model.add_argument("--device", metavar="NAME", help="such as cuda:1; by default CUDA, MPS or the CPU")
    model.add_argument("--sam2-path", type=Path, metavar="FILE", help="a SAM 2 checkpoint instead of the download")
    model.add_argument("--dinov2-path", type=Path, metavar="DIR", help="a DINOv2 folder instead of the download")
    model.add_argument("--tiles", action="store_true", help="look at large images in overlapping tiles too: small objects")
    gate_help = "spare the segmenter images in which no patch is this similar to a prototype, 0 to 1: rare classes"
    model.add_argument("--presence-gate", type=_score, metavar="S", help=gate_help)
    output = parser.add_argument_group("what is kept")
    output.add_argument("--min-score", type=_score, metavar="S", help="leave out lower scores; by default the preset's")
    output.add_argument("--max-detections", type=_count, default=100, metavar="N", help="an image (%(default)s)")
    output.add_argument("--workers", type=_workers, metavar="N", help="threads that decode images; 0 for none")
    output.add_argument("--quiet", action="store_true", help="no progress bar")


def _run(arguments: argparse.Namespace) -> int:
    progress = False if arguments.quiet else None
    if arguments.command == "demo":
        from .demo.run import run_demo

        run_demo(arguments.out, progress=progress)
        return 0
    from .coco_run import CocoJob, run_coco

    job = CocoJob(
        images=arguments.images,
        references=arguments.references,
        targets=arguments.targets,
        out=arguments.out,
        report=arguments.report,
        prototypes=arguments.prototypes,
        model=arguments.model,
        device=arguments.device,
        sam2_path=arguments.sam2_path,
        dinov2_path=arguments.dinov2_path,
        min_score=arguments.min_score,
        max_detections=arguments.max_detections,
        num_workers=arguments.workers,
        tiles=arguments.tiles,
        presence_gate=arguments.presence_gate,
    )
    report = run_coco(job, progress=progress)
    print(report)
    for name, reason in (*report.skipped_references, *report.skipped_images):
        print(f"refseg: skipped {name}: {_one_line(reason)}", file=sys.stderr)
    return 0


def _fail(message: str) -> int:
    print(f"refseg: error: {_one_line(message)}", file=sys.stderr)
    return 2


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _score(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value


def _count(text: str) -> int:
    return _whole_number(text, 1)


def _workers(text: str) -> int:
    return _whole_number(text, 0)


def _whole_number(text: str, least: int) -> int:
    value = int(text) if text.isascii() and text.isdigit() else -1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
    return value
