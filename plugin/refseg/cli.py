"""The command `refseg`: COCO in and out, an index, benchmarks, the demo, the plugin.

Errors are one line on stderr and exit code 2.

Nothing heavy is imported before it is known what to do; `refseg coco` never imports FiftyOne, except to download a SAM 2.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from . import __version__
from .arguments import (
    STRICT_HELP,
    UsageError,
    add_matching_arguments,
    add_model_arguments,
    add_pixel_arguments,
    count,
    matching_of,
    pixels_of,
    score,
    whole_number,
)
from .errors import BenchmarkError, DatasetError, RefSegError
from .plugin import add_plugin, run_plugin
from .published.command import add_benchmark, run_command

DESCRIPTION = "Find and segment objects by example: one to thirty references in, instance masks out. No training."
COCO_DESCRIPTION = (
    "Segment a folder of images with the objects of a COCO file as references, and write COCO results. Without --targets "
    "every image under --images is segmented, and what the ids mean is written beside the results. Scores "
    "are probabilities, learnt from what lies around references: these should be all objects of their classes in their images."
)
INDEX_DESCRIPTION = (
    "Compute and keep the candidates of every image of a FiftyOne dataset that its index does not hold yet: the expensive half "
    "of segmenting, which does not depend on references. A build that was stopped goes on where it was."
)
INSPECT_DESCRIPTION = (
    "What prototypes are worth: similarities, thresholds and F1 of classes, what is confused, and references that hurt or look "
    "like a mistake. Opens no image and needs no model."
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving: main prints all errors alike."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 2 after an error, 130 when interrupted."""
    parser = build_parser()
    _say_any_name()
    try:
        arguments = parser.parse_args(argv)
        return _run(arguments)
    except BenchmarkError as error:
        print(f"refseg: error: {error}", file=sys.stderr)  # a list, a line for each thing that is missing
        return 2
    except RefSegError as error:
        return _fail(str(error))
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        return _fail(f"{named}{error.strerror or error}")
    except KeyboardInterrupt:
        print("refseg: interrupted", file=sys.stderr)
        return 130


def _say_any_name() -> None:
    """Let messages hold names of files that the terminal cannot show, such as those that are no UTF-8: in escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def build_parser() -> argparse.ArgumentParser:
    """The arguments of every subcommand."""
    parser = _Parser(prog="refseg", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"refseg {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="coco | index | inspect | benchmark | demo | plugin"
    )
    coco = commands.add_parser("coco", help="segment images with references from a COCO file", description=COCO_DESCRIPTION)
    _add_coco_arguments(coco)
    index = commands.add_parser("index", help="compute the candidates of a FiftyOne dataset", description=INDEX_DESCRIPTION)
    _add_index_arguments(index)
    inspect = commands.add_parser("inspect", help="what a prototypes file is worth", description=INSPECT_DESCRIPTION)
    inspect.add_argument("file", type=Path, metavar="SAFETENSORS", help="as --prototypes of coco, or Prototypes.save, wrote it")
    inspect.add_argument("--out", type=Path, metavar="PNG", help="where a picture of the report goes")
    add_benchmark(commands)
    add_plugin(commands)
    demo = commands.add_parser(
        "demo", help="the whole loop on 60 synthetic images", description="The whole loop on 60 synthetic images."
    )
    demo.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="for the report and picture (%(default)s)")
    demo.add_argument("--seed", type=whole_number, default=7, metavar="N", help="another one draws other parts (%(default)s)")
    demo.add_argument("--quiet", action="store_true", help="tell no progress")
    return parser


def _add_coco_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    files.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of images")
    files.add_argument("--references", type=Path, required=True, metavar="JSON", help="COCO file; masks, or boxes alone")
    files.add_argument("--targets", type=Path, metavar="JSON", help="COCO file of the images to segment")
    negatives_help = "COCO file of objects taken for a class that are none; of the class they are named like, else of all"
    files.add_argument("--negatives", type=Path, metavar="JSON", help=negatives_help)
    empty_help = "folder, or COCO file, of images that hold none of the classes: what is found there becomes a negative"
    files.add_argument("--empty", type=Path, metavar="DIR|JSON", help=empty_help)
    files.add_argument("--out", type=Path, required=True, metavar="JSON", help="where the results go")
    files.add_argument("--report", type=Path, metavar="JSON", help="where counts, times, skips and scores go")
    files.add_argument("--prototypes", type=Path, metavar="SAFETENSORS", help="where the prototypes go, to be used again")
    semantic_help = "where a PNG of each image goes: 0 background, else the number of the class in classes.json beside them"
    files.add_argument("--semantic", type=Path, metavar="DIR", help=semantic_help)
    model = parser.add_argument_group("model")
    add_model_arguments(model, default="large")
    model.add_argument("--tiles", action="store_true", help="look at large images in overlapping tiles too: small objects")
    turned_help = "look at references turned and mirrored too: for objects that lie any way up"
    model.add_argument("--turned", action="store_true", help=turned_help)
    gate_help = "spare the segmenter images in which no patch is this similar to a prototype, 0 to 1: rare classes"
    model.add_argument("--presence-gate", type=score, metavar="S", help=gate_help)
    add_pixel_arguments(model)
    matching = parser.add_argument_group("matching", "Without these, as suits the preset.")
    add_matching_arguments(matching)
    scenes_help = "compare masks with those that show references in their own images too, where scores are probabilities"
    matching.add_argument("--scenes", action=argparse.BooleanOptionalAction, help=scenes_help)
    output = parser.add_argument_group("what is kept")
    output.add_argument(
        "--min-score",
        type=score,
        metavar="S",
        help="leave out lower scores; by default 0.5 for probabilities, else the preset's",
    )
    calibration_help = "make scores probabilities, learnt from the images of references; else they are similarities"
    output.add_argument("--calibration", action=argparse.BooleanOptionalAction, help=calibration_help)
    output.add_argument("--max-detections", type=count, default=100, metavar="N", help="an image (%(default)s)")
    output.add_argument("--strict", action="store_true", help=STRICT_HELP)
    output.add_argument("--workers", type=whole_number, metavar="N", help="threads that decode images; 0 for none")
    output.add_argument("--quiet", action="store_true", help="tell no progress")


def _add_index_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="the name of a FiftyOne dataset of images")
    parser.add_argument("--view", metavar="NAME", help="one of its saved views: these images alone")
    parser.add_argument("--uri", metavar="DIR|ADDRESS", help="where the index lies; by default beside FiftyOne's data")
    model = parser.add_argument_group("model")
    add_model_arguments(model, default="large")
    model.add_argument("--tiles", action="store_true", help="look at large images in overlapping tiles too: small objects")
    add_pixel_arguments(model)
    work = parser.add_argument_group("work")
    engine_help = "local computes in this process, ray on all GPUs and cores or on the cluster of RAY_ADDRESS (%(default)s)"
    work.add_argument("--engine", choices=("local", "ray"), default="local", help=engine_help)
    workers_help = "with local, threads that decode images, 0 for none; with ray, processes that hold the models"
    work.add_argument("--workers", type=whole_number, metavar="N", help=workers_help)
    work.add_argument("--cores", type=count, metavar="N", help="of each worker, with ray; by default what there is, shared out")
    work.add_argument("--quiet", action="store_true", help="tell no progress")


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "inspect":
        return _inspect(arguments.file, arguments.out)
    if arguments.command == "benchmark":
        return run_command(arguments)
    if arguments.command == "plugin":
        return run_plugin(arguments)
    progress = not arguments.quiet
    if arguments.command == "index":
        return _index(arguments, progress)
    if arguments.command == "demo":
        from .demo.run import run_demo

        run_demo(arguments.out, progress=progress, seed=arguments.seed)
        return 0
    from .coco import CocoJob, run_coco

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
        matching=matching_of(arguments),
        negatives=arguments.negatives,
        empty=arguments.empty,
        semantic=arguments.semantic,
        strict=arguments.strict,
        turned=arguments.turned,
        **pixels_of(arguments),
    )
    report = run_coco(job, progress=progress)
    print(report)
    for name, reason in report.skipped_references:
        print(f"refseg: skipped {_one_line(reason)} ({name})", file=sys.stderr)
    for path, reason in report.skipped_images:
        print(f"refseg: skipped {path}: {_one_line(reason)}", file=sys.stderr)
    return 0


def _index(arguments: argparse.Namespace, progress: bool) -> int:
    from .dataset.indexing import build_index
    from .dataset.views import kept_with
    from .models import load_models, local_weights

    view = kept_with(arguments.dataset)
    if arguments.view is not None:
        known = view.list_saved_views()
        if arguments.view not in known:
            raise DatasetError(
                f"The dataset {view.name!r} has no saved view {arguments.view!r}: choose one of {', '.join(map(repr, known))}."
                if known
                else f"The dataset {view.name!r} has no saved view: leave out --view."
            )
        view = view.load_saved_view(arguments.view)
    with local_weights({arguments.model.removesuffix("-fast"): (arguments.sam2_path, arguments.dinov2_path)}):
        report = build_index(
            view,
            arguments.model if arguments.device is None else load_models(arguments.model, device=arguments.device),
            uri=arguments.uri,
            tiles=arguments.tiles,
            num_workers=arguments.workers,
            engine=arguments.engine,
            cores=arguments.cores,
            progress=progress,
            **pixels_of(arguments),
        )
    print(report)
    return 0


def _inspect(file: Path, out: Path | None) -> int:
    from .insight import assess
    from .outputs import check_outputs, replacing, require_png
    from .prototypes import Prototypes

    if out is not None:
        check_outputs({"--out": out}, {"the file of prototypes": file})
        require_png(out)
    report = assess(Prototypes.load(file))
    print(report)
    if out is not None:
        with replacing(out) as draft:
            report.picture().save(draft, "PNG")
    return 0


def _fail(message: str) -> int:
    print(f"refseg: error: {_one_line(message)}", file=sys.stderr)
    return 2


def _one_line(message: str) -> str:
    return " ".join(message.split())
