"""`refseg benchmark`: its arguments, and what they come to. Nothing heavy is imported before it is known what to do."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import (
    STRICT_HELP,
    add_matching_arguments,
    add_model_arguments,
    add_pixel_arguments,
    count,
    matching_of,
    pixels_of,
    score,
    whole_number,
)

if TYPE_CHECKING:
    from .job import BenchmarkJob

BENCHMARKS = {
    "coco-fsod": "COCO 2017 few-shot: 20 novel classes, box and mask AP on val2017",
    "lvis": "LVIS v1 minival: 1,203 classes, rare, common and frequent",
    "voc-fsod": "Pascal VOC few-shot: three splits of 5 classes, AP50 on 2007 test",
    "cd-fsod": "cross-domain few-shot: ArTaxOr, clipart1k, DIOR, FISH, NEU-DET, UODD",
    "coco-20i": "COCO-20i: one-way semantic segmentation in episodes, four folds, mIoU",
    "toy": "ten COCO images with birds and boats, one reference each",
    "custom": "any two COCO files",
}
DRAWN_ALONE = ("toy", "coco-20i")
"""Benchmarks that take no file of the user's own: their images are those released, of eight bits."""
DESCRIPTION = (
    "Run a published benchmark on data of your own disk and put the figures beside the published ones. Everything is checked "
    "first. The candidate index is shared by all shots and seeds, what is done is kept in --out, and the same command goes on "
    "after an interruption."
)
REPORT_DESCRIPTION = "Join the results of several benchmark runs into one table and one picture."


def add_benchmark(commands: Any) -> None:
    """Add the subcommand `benchmark` with one subcommand for each benchmark, and `report`."""
    parser = commands.add_parser("benchmark", help="reproduce a published benchmark", description=DESCRIPTION)
    names = parser.add_subparsers(dest="benchmark", required=True, metavar=" | ".join([*BENCHMARKS, "report"]))
    for name, line in BENCHMARKS.items():
        one = names.add_parser(name, help=line, description=f"{line[0].upper()}{line[1:]}. {DESCRIPTION}")
        _add_arguments(one, name)
    report = names.add_parser("report", help="several runs in one table and picture", description=REPORT_DESCRIPTION)
    report.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="--out of a benchmark")
    report.add_argument("--out", type=Path, metavar="DIR", help="folder for report.md and report.png; else only printed")


def _add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    what = "folder of images" if name == "custom" else "folder that the data was unpacked to"
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help=what)
    out_help = f"for results, tables and pictures (benchmark-{name})"
    parser.add_argument("--out", type=Path, default=Path(f"benchmark-{name}"), metavar="DIR", help=out_help)
    if name == "custom":
        parser.add_argument("--references", required=True, metavar="JSON", help="COCO file of the objects to show")
        parser.add_argument("--targets", type=Path, required=True, metavar="JSON", help="COCO file of the objects to find")
    elif name not in DRAWN_ALONE:
        given_help = (
            "references to use in place of drawn ones: a COCO file, or {class: [{image, bbox}]}; {shots} and {seed} in the "
            "name are filled in"
        )
        parser.add_argument("--references", metavar="JSON", help=given_help)
    if name in ("coco-fsod", "custom"):
        which = "names; by default all" if name == "custom" else "novel, all, or names; by default the novel ones"
        parser.add_argument("--classes", type=_words, metavar="A,B", help=which)
    if name in ("voc-fsod", "cd-fsod", "coco-20i"):
        only_help = {"voc-fsod": "such as split1,split3", "cd-fsod": "such as DIOR,FISH", "coco-20i": "such as fold0"}[name]
        parser.add_argument("--only", type=_words, metavar="A,B", help=f"a part of it, {only_help}")
    if name != "toy":
        parser.add_argument("--shots", type=_counts, metavar="N,N", help="references a class; by default those published")
    parser.add_argument("--seeds", type=count, default=1, metavar="N", help="how many draws of references (%(default)s)")
    parser.add_argument("--seed", type=whole_number, default=33, metavar="N", help="the first of them (%(default)s)")
    limit_help = "episodes a fold, to try it out" if name == "coco-20i" else "only so many images, evenly spread, to try it out"
    parser.add_argument("--limit", type=count, metavar="N", help=limit_help)
    parser.add_argument("--check", action="store_true", help="only say whether everything is there, and what would be done")
    model = parser.add_argument_group("model")
    add_model_arguments(model, default="paper")
    if name not in DRAWN_ALONE:
        add_pixel_arguments(model)
    add_matching_arguments(parser.add_argument_group("matching", "Without these, as suits the preset."))
    score_help = "least score of what is pictured, written to the dataset, or part of a map; by default the preset's"
    parser.add_argument("--min-score", type=score, metavar="S", help=score_help)
    parser.add_argument("--strict", action="store_true", help=STRICT_HELP)
    parser.add_argument("--workers", type=whole_number, metavar="N", help="threads that decode images; 0 for none")
    parser.add_argument("--processes", type=whole_number, metavar="N", help="that match and score; by default one a core")
    parser.add_argument("--insist", action="store_true", help="begin even where there seems to be too little room on the disk")
    parser.add_argument("--quiet", action="store_true", help="tell no progress")


def run_command(arguments: argparse.Namespace) -> int:
    """Do what was asked; returns the exit code."""
    if arguments.benchmark == "report":
        from .joining import join_results

        print(join_results(arguments.folders, arguments.out))
        return 0
    from ..progress import drain
    from .planning import describe_plan, make_plan
    from .running import iter_benchmark

    if not arguments.quiet:
        print("Reading annotations, and checking what is there…", file=sys.stderr, flush=True)
    plan = make_plan(_job(arguments))
    print(describe_plan(plan), flush=True)
    if arguments.check:
        return 0
    print(drain(iter_benchmark(plan), not arguments.quiet))
    return 0


def _job(arguments: argparse.Namespace) -> BenchmarkJob:
    from .job import BenchmarkJob

    given = vars(arguments)
    return BenchmarkJob(
        name=arguments.benchmark,
        data=arguments.data,
        out=arguments.out,
        model=arguments.model,
        shots=given.get("shots"),
        num_seeds=arguments.seeds,
        seed=arguments.seed,
        limit=arguments.limit,
        classes=given.get("classes"),
        only=given.get("only"),
        references=given.get("references"),
        targets=given.get("targets"),
        min_score=arguments.min_score,
        matching=matching_of(arguments),
        device=arguments.device,
        sam2_path=arguments.sam2_path,
        dinov2_path=arguments.dinov2_path,
        num_workers=arguments.workers,
        num_processes=arguments.processes,
        insist=arguments.insist,
        strict=arguments.strict,
        **pixels_of(arguments),
    )


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing")
    return words


def _counts(text: str) -> tuple[int, ...]:
    return tuple(sorted({count(word) for word in _words(text)}))
