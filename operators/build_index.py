"""Compute and keep the candidates of images, so that segmenting them later takes seconds."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import fiftyone.operators.types as types

from .forms.constants import MODELS_THAT_KEEP_DUPLICATES, SKIPS_IN_RESULT
from .forms.form import Form
from .forms.indexes import IndexRecord, coverage, index_records, lender, record_pixels
from .forms.inputs import default_model, model_input
from .forms.messages import count, duration, size, skips
from .forms.pixels import given_pixels, index_pixels, pixel_inputs, pixel_params
from .forms.selection import collection, target_images
from .running.base import RefSegOperator, Result, Work

if TYPE_CHECKING:
    from refseg.images import PixelSettings
    from refseg.index import Room


LOCAL = "local"
ENGINES = {LOCAL: "local: in one process", "ray": "ray: on all GPUs and cores here, or on the cluster of RAY_ADDRESS"}


class BuildIndex(RefSegOperator):
    """Fills the dataset's candidate index."""

    title = "Build index"
    summary = "Compute the candidates of each image once, so that segmenting takes seconds afterwards"
    kept_when_cancelled = "the images done so far are kept, and the next build goes on from there"

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which images, which model, what is kept and where."""
        form = Form(
            ctx,
            "Build index",
            "Compute and keep the candidates of each image. They do not depend on references: with the index, segmenting with "
            "new references takes seconds. New and changed images are added; a build that was stopped goes on where it was.",
            action="Index",
        )
        if form.usable:
            from refseg.dataset import count_samples

            model_input(form)
            model = form.value("model", default_model(ctx))
            exact = model in MODELS_THAT_KEEP_DUPLICATES
            if not exact:
                description = "A larger index, which answers exactly as segmenting without an index does"
                exact = form.switch("exact", False, "Keep near-duplicates", description)
            tiles = form.switch("tiles", False, "Tiles", "Look at large images in overlapping tiles too, for small objects")
            description = "Tell by a file's bytes whether it has changed, not by its size and time alone: reads every file"
            form.switch("content_hash", False, "Compare file contents", description)
            _engine_inputs(form)
            record = record_of(ctx, model, tiles=tiles, exact=exact, pixels=_chosen_pixels(ctx))
            can_lie_there = _location_input(form, record)
            pixel_inputs(form)
            covered = coverage(ctx, record)
            form.notice("coverage", covered.describe("only files that have changed are computed again"))
            number = covered.num_images if covered.num_images is not None else count_samples(collection(ctx))
            if can_lie_there:
                _room_input(form, record, covered.most_missing, number, model, exact=bool(exact), tiles=tiles)
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Compute what is missing."""
        from refseg.dataset import IndexPlace, iter_build_index

        # Where exact is not asked for, the preset decides.
        exact = True if ctx.params.get("exact") else None
        place = IndexPlace(ctx.params.get("uri") or None, exact, bool(ctx.params.get("tiles", False)))
        report = yield from iter_build_index(
            target_images(ctx),
            ctx.params.get("model") or default_model(ctx),
            place,
            pixels=given_pixels(ctx.params),
            content_hash=bool(ctx.params.get("content_hash", False)),
            insist=bool(ctx.params.get("insist", False)),
            engine=ctx.params.get("engine") or LOCAL,
            num_workers=None if (number := ctx.params.get("num_workers")) is None else int(number),
        )
        return {
            "uri": report.uri,
            "num_images": report.num_images,
            "num_added": report.num_added,
            "num_candidates": report.num_candidates,
            "num_bytes": report.num_bytes,
            "bytes_per_image": report.bytes_per_image,
            "num_skipped": len(report.skipped),
            "skipped": [[image.sample_id, image.filepath, image.reason] for image in report.skipped[:SKIPS_IN_RESULT]],
            "num_vanished": len(report.vanished),
            "seconds": round(report.seconds, 3),
        }

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Say how many images are in the index, how large it is and what was skipped."""
        doubtful = result["num_skipped"] or result["num_vanished"]
        yield ctx.ops.notify(describe(result), variant="warning" if doubtful else "success")

    def __call__(
        self,
        sample_collection: Any,
        model: str | None = None,
        exact: bool = False,
        content_hash: bool = False,
        uri: str | None = None,
        tiles: bool = False,
        pixel_range: Sequence[float] | None = None,
        channels: Sequence[int] | None = None,
        insist: bool = False,
        engine: str = "local",
        num_workers: int | None = None,
        sam2_path: str | None = None,
        dinov2_path: str | None = None,
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Compute and keep the candidates of each image that the dataset's index does not hold yet.

        Args:
            sample_collection: a dataset or view of images.
            model: a preset's name; by default that of the newest prototypes kept, else `large` where there is a GPU and `tiny`
                where there is none.
            exact: keep near-duplicates, masks of an IoU of 0.95 and more; the preset `paper` always does.
            content_hash: tell whether a file has changed by its bytes, not by name, size and time of change alone.
            uri: a whole path or an object store's address; by default where the index lies already, else in FiftyOne's data
                folder.
            tiles: look at each image larger than the segmenter's input in overlapping tiles too, for small objects; an index of
                its own.
            pixel_range: the values of black and white in images of more than 8 bits that do not say it; by default as in the
                index used last, or for the newest prototypes, else found from all images.
            channels: which bands of TIFFs with more than three, counted from 0, are red, green and blue, or the only one; by
                default as for the range, else the first three.
            insist: begin even where there seems to be too little room on the disk.
            engine: "local" computes in this process; "ray" on all GPUs and cores of this machine, or on the cluster of
                RAY_ADDRESS.
            num_workers: with "ray", how many processes hold the models, by default as many as there is room for; else threads
                that decode images.
            sam2_path: a SAM 2 checkpoint, or a folder for `edge` and `sam3`, to load instead of the download; kept with the
                dataset for this model, "" for the download again.
            dinov2_path: the same, a folder that `save_pretrained` wrote.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `uri`, `num_images` (of
            the collection, in the index now), `num_added`, `num_candidates`, `num_bytes` and `bytes_per_image` (of the whole
            index), `num_skipped`, `skipped` (the first hundred: sample id, path, reason), `num_vanished` (images that others
            took out of the index meanwhile) and `seconds`.
        """
        return self.call(locals(), **pixel_params(pixel_range, channels))


def describe(result: Result) -> str:
    """One or two sentences on the index."""
    added = f"{count(result['num_added'], 'image')} added in {duration(result['seconds'])}"
    text = (
        f"{count(result['num_images'], 'image')} in the index, {added if result['num_added'] else 'none added'}; "
        f"{size(result['num_bytes'])}, {size(result['bytes_per_image'])} an image."
    )
    if result["num_vanished"]:
        text += f" {count(result['num_vanished'], 'image')} left it meanwhile, as by deleting or compacting: build it again."
    return text + skips(result["skipped"], result["num_skipped"])


def record_of(
    ctx: Any,
    model: str,
    *,
    tiles: bool,
    exact: bool | None = None,
    encoder: str | None = None,
    pixels: PixelSettings | None = None,
    borrows: bool = False,
) -> IndexRecord | None:
    """The record of the index with tiles, or of that without, for this model, or None; otherwise as find_record.

    With pixels, of one with these channels and with no other range: that which a build with them goes on with.
    """
    by_default = model in MODELS_THAT_KEEP_DUPLICATES
    for record in sorted(index_records(ctx), key=lambda record: record.exact == by_default)[::-1]:
        # Records of earlier versions say nothing of tiles.
        has_tiles = bool(getattr(ctx.dataset.get_run_info(record.key).config, "tiles", False))
        own = record_pixels(record)
        is_read_so = pixels is None or (own.channels == pixels.channels and own.fits(pixels))
        is_of_kind = (record.model, has_tiles) == (model, tiles) and exact in (None, record.exact)
        if is_of_kind and is_read_so and encoder in (None, record.encoder):
            return record
    other = lender(model) if borrows else None
    return None if other is None else record_of(ctx, other, tiles=tiles, exact=exact, encoder=encoder, pixels=pixels)


def _engine_inputs(form: Form) -> None:
    """Where the work is done; asked where Ray is installed, or somebody has said it."""
    if importlib.util.find_spec("ray") is None and form.value("engine", LOCAL) == LOCAL:
        return
    form.choice("engine", ENGINES, LOCAL, "Engine", "Where candidates are computed", "")
    if form.value("engine", LOCAL) != LOCAL:
        description = "Processes that hold the models; by default as many as there is room for"
        form.number("num_workers", None, "Workers", description, 1, whole=True)


def _chosen_pixels(ctx: Any) -> PixelSettings | None:
    """How the index is to be built; None where the form will say that it cannot be."""
    from refseg.errors import DatasetError

    try:
        return index_pixels(ctx)
    except DatasetError:
        return None


def _location_input(form: Form, record: IndexRecord | None) -> bool:
    """Where the index is to lie; returns whether it can."""
    place = "a folder of FiftyOne's own" if record is None else record.uri
    if not form.place("uri", "Location", f"A folder, or an object store's address; by default {place}"):
        return False
    uri = form.value("uri")
    if isinstance(uri, str) and record is not None and uri.rstrip("/") != record.uri.rstrip("/"):
        form.warning(
            "elsewhere",
            f"The dataset's index for the model {record.model!r} lies at {record.uri}. Another one is built, and the dataset "
            "uses that from then on; the first one stays where it is.",
        )
    return True


def room_of(
    record: IndexRecord | None,
    num_missing: int,
    model: str,
    *,
    place: str | None = None,
    exact: bool = False,
    tiles: bool = False,
) -> Room:
    """What images that are missing will take on the disk, and what is free where their index lies or will lie."""
    from refseg.index import room_for
    from refseg.models import get_preset

    held = (0, 0) if record is None else (record.num_images, record.num_bytes)
    where = place or (record.uri if record is not None else str(fo.config.default_dataset_dir))
    return room_for(where, num_missing, get_preset(model), exact=exact, tiles=tiles, held=held)


def _room_input(
    form: Form, record: IndexRecord | None, num_missing: int, num_chosen: int, model: str, *, exact: bool, tiles: bool
) -> None:
    """What the images that are missing will take on the disk; where there is too little room, whether to begin anyway."""
    from refseg.models import PRESETS

    if model not in PRESETS:
        return
    place = str(form.value("uri") or (record.uri if record is not None else fo.config.default_dataset_dir))
    if record is not None and os.path.normpath(place) != os.path.normpath(record.uri):
        # An index at another place begins with nothing.
        num_missing = num_chosen
    room = room_of(record, num_missing, model, place=place, exact=exact, tiles=tiles)
    if not room.fits:
        insists = form.switch("insist", False, "Begin anyway", "There seems to be too little room on the disk")
        text = f"The index will take {room}: free some space, or choose another location."
        form.warning("room", text) if insists else form.obstacle("room", text)
    elif num_missing:
        form.notice("room", f"It will take {room}.")
