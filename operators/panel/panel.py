"""The panel "Reference segmentation": events and buttons in, library calls and operators out, sections back.

What is shown comes from FiftyOne each time it is asked for (`sections`) and is drawn by `js/`; nothing that matters
is kept here, so a closed browser, a second one or a new server lose nothing. Long work runs in `background`, and the panel asks
after it.
"""

from __future__ import annotations

import logging
import shutil
from typing import Any

import fiftyone.operators as foo
import fiftyone.operators.types as types
from fiftyone.operators.categories import Categories

from ..evaluate import EVALUATION_PANEL
from ..forms.selection import all_images, collection, shows_frames
from ..mark_empty import count_empty, describe, mark
from ..running import background, failures
from ..running.jobs import request_cancel, running_jobs
from ..running.warming import warm_up, warm_up_for_the_first
from . import examples as panel_examples
from . import looking
from . import sections as panel_sections
from . import settings as panel_settings
from .acting import (
    DECIDED,
    clear_selection,
    job_of,
    let_alt_select,
    open_sample,
    send,
    send_overview,
    told,
)
from .closer import Closer
from .comparing import Comparing
from .files import Files
from .inspecting import Inspecting
from .measuring import Measuring
from .nearest import Nearest
from .pictures import SIDE, pictures
from .reviewing import Reviewing
from .showing import Showing

logger = logging.getLogger(__name__)

PLUGIN = "@refseg/reference-segmentation"
HELP = """
**Reference segmentation** finds objects like the ones you show it.

1. **References**: select labelled objects (or images) and add them; one to thirty a class. Images that hold none of
   them teach where to keep quiet: select some and mark them as empty.
2. **Index**: compute each image's masks and features once.
3. **Segment**: preview, then write predictions to a field.
4. **Review**: accept, reject or relabel what the model is least sure of, then update. Above it, references are suggested.
5. **Results**: compare with ground truth, or see how much you had to correct.
"""
REVIEWED_IN_GRID = 100
"""Objects of the queue that are shown in the grid."""


class ReferenceSegmentation(Showing, Closer, Reviewing, Nearest, Inspecting, Comparing, Measuring, Files, foo.Panel):
    """Five sections, References, Index, Segment, Review, Results, and before Review suggested references."""

    @property
    def config(self) -> foo.PanelConfig:
        """Name, label and where it can be opened."""
        return foo.PanelConfig(
            name="reference_segmentation",
            label="Reference segmentation",
            help_markdown=HELP,
            icon="center_focus_strong",
            category=Categories.CURATE,
            surfaces="grid modal",
        )

    def render(self, ctx: Any) -> types.Property:
        """The component that draws the sections, and the methods it may call; the same for every dataset."""
        names = [name for name in dir(type(self)) if getattr(getattr(type(self), name), "is_called", False)]
        calls = {name: getattr(self, name) for name in names if not name.startswith("on_")}
        return types.Property(types.Object(), view=types.View(component="RefSegPanel", composite_view=True, **calls))

    # Events

    @told
    def on_load(self, ctx: Any) -> None:
        """Let Alt select what not to look for, and show what there is."""
        let_alt_select(ctx)
        warm_up_for_the_first(ctx)
        send_overview(ctx)

    def on_unload(self, ctx: Any) -> None:
        """Give FiftyOne its own way of selecting back."""
        ctx.ops.clear_sample_selection_style()
        ctx.ops.clear_label_selection_style()

    @told
    def on_change_dataset(self, ctx: Any) -> None:
        """Show the other dataset."""
        send_overview(ctx)

    @told
    def on_change_selected(self, ctx: Any) -> None:
        """Say what is selected now."""
        if panel_sections.dataset_problem(ctx) is not None:
            send_overview(ctx)
            return
        ctx.panel.set_data("overview.selection", panel_sections.selection(ctx))

    on_change_selected_labels = on_change_selected

    @told
    def on_change_view(self, ctx: Any) -> None:
        """Say what is open now, and whether anything can be done with it."""
        send_overview(ctx)

    @told
    def on_change_group_slice(self, ctx: Any) -> None:
        """Show the images of the other slice."""
        send_overview(ctx)
        if panel_sections.dataset_problem(ctx) is None:
            send(ctx, *panel_sections.SECTIONS)

    @told
    def on_change_current_sample(self, ctx: Any) -> None:
        """Show, once an image is closed, what was changed beside it; the panel there has taken its way of selecting along."""
        let_alt_select(ctx)
        ctx.panel.set_data("overview.current_sample", ctx.current_sample)
        if ctx.current_sample is None and panel_sections.dataset_problem(ctx) is None:
            send(ctx, *DECIDED)

    # What is shown

    @told
    def load(self, ctx: Any) -> Any:
        """Sections by name; all that are asked for."""
        if panel_sections.dataset_problem(ctx) is not None:
            send_overview(ctx)
            return None
        names = ctx.params.get("sections") or list(panel_sections.SECTIONS)
        if ctx.params.get("anew"):
            looking.forget(ctx)
            send_overview(ctx)
        send(ctx, *names)
        return True

    @told
    def pictures(self, ctx: Any) -> Any:
        """Pictures of labels by id."""
        kind = {name: bool(ctx.params.get(name)) for name in ("large", "plain", "sharp")}
        return pictures(ctx, ctx.params.get("wanted") or (), side=int(ctx.params.get("side") or SIDE), **kind)

    @told
    def watch(self, ctx: Any) -> Any:
        """What runs now, and which of the jobs the panel knows of have ended; what those have to tell is told."""
        ended = []
        for job_id in ctx.params.get("known") or ():
            told = background.outcome(ctx, job_id)
            if told is None:
                continue
            ended.append(job_id)
            for uri, params in told:
                ctx.trigger(uri, params)
        if ended:
            send(ctx, *panel_sections.SECTIONS)
        jobs = panel_sections.jobs(ctx)
        ctx.panel.set_data("overview.jobs", jobs)
        ctx.panel.set_data("overview.failures", failures.kept_failures(ctx))
        return {"jobs": jobs, "ended": ended}

    # Choices

    @told
    def choose(self, ctx: Any) -> Any:
        """Keep changed settings."""
        warm_up()
        changes = dict(ctx.params.get("changes") or {})
        if "threshold" in changes:
            # Without a value it is the calibrated one again.
            name, value = changes.pop("threshold")
            thresholds = dict(panel_settings.read(ctx).thresholds) | {name: value}
            changes["thresholds"] = tuple((name, least) for name, least in thresholds.items() if least is not None)
        if "matching" in changes:
            changes["matching"] = {**panel_settings.read(ctx).matching, **changes["matching"]} if changes["matching"] else {}
        if changes.get("classes") is not None:
            changes["classes"] = tuple(changes["classes"])
        try:
            panel_settings.change(ctx, **changes)
        except (TypeError, ValueError) as error:
            return {"problem": str(error)}
        send_overview(ctx)
        send(ctx, *(ctx.params.get("sections") or ()))
        return {"problem": None}

    # References

    @told
    def add(self, ctx: Any) -> Any:
        """Make what is selected references, and what is selected with Alt negatives; or all of it negatives."""
        warm_up()
        text = panel_examples.add_selection(
            ctx, panel_settings.read(ctx), only_negatives=bool(ctx.params.get("only_negatives"))
        )
        ctx.ops.notify(text, variant="success")
        clear_selection(ctx)
        ctx.ops.reload_dataset()
        send(ctx, "segment", *DECIDED)
        return True

    @told
    def remove(self, ctx: Any) -> Any:
        """Take the tag off one reference or negative."""
        panel_examples.remove(ctx, ctx.params["field"], ctx.params["id"], ctx.params["sample_id"])
        ctx.ops.reload_samples()
        send(ctx, "segment", *DECIDED)
        return True

    @told
    def restore(self, ctx: Any) -> Any:
        """Take the last removal back."""
        panel_examples.restore(ctx)
        ctx.ops.reload_samples()
        send(ctx, "segment", *DECIDED)
        return True

    @told
    def mark_empty(self, ctx: Any) -> Any:
        """Mark the selected images as empty, or take the mark off."""
        ids = [item["id"] for item in ctx.selected_samples] if not ctx.view._is_patches else []
        if not ids:
            raise ValueError("No image is selected: select some in the grid that hold no object of any class.")
        unmark = bool(ctx.params.get("unmark"))
        number = mark(all_images(ctx).select(ids), unmark=unmark)
        result = {"num_samples": number, "unmarked": unmark, "num_empty": count_empty(ctx)}
        ctx.ops.notify(describe(result), variant="success")
        clear_selection(ctx)
        ctx.ops.reload_samples()
        send(ctx, "references")
        return True

    @told
    def draw(self, ctx: Any) -> Any:
        """Draw some references of each class from the chosen field."""
        warm_up()
        changes = {"shots": ctx.params["shots"]} if "shots" in ctx.params else {}
        text, variant = panel_examples.draw(ctx, panel_settings.change(ctx, **changes))
        ctx.ops.notify(text, variant=variant)
        ctx.ops.reload_samples()
        send_overview(ctx)
        send(ctx, "references", "segment")
        return True

    # Long work

    @told
    def start(self, ctx: Any) -> Any:
        """Start a job and return its id."""
        job, params = job_of(ctx, ctx.params["job"])
        job_id = background.start(
            ctx,
            f"{PLUGIN}/{job}",
            params,
            job=ctx.params["job"],
            only_view=bool(ctx.params.get("only_view")),
            delegate=bool(ctx.params.get("delegate")) and background.can_delegate(),
        )
        ctx.panel.set_data("overview.jobs", panel_sections.jobs(ctx))
        ctx.panel.set_data("overview.failures", failures.kept_failures(ctx))
        return {"id": job_id}

    @told
    def dismiss(self, ctx: Any) -> Any:
        """Forget why the last job of a section failed: someone has read it."""
        failures.forget_failure(ctx, ctx.params["section"])
        ctx.panel.set_data("overview.failures", failures.kept_failures(ctx))
        return True

    @told
    def cancel(self, ctx: Any) -> Any:
        """Ask a job to end after its current batch; one that only waits is taken out of the queue."""
        job_id = ctx.params["id"]
        running = [job for job in running_jobs(ctx) if job.id == job_id]
        if running:
            request_cancel(ctx, running)
            ctx.ops.notify(f"{running[0].label} ends after its current batch; what is done is kept.", variant="info")
        elif background.withdraw(ctx, job_id):
            ctx.ops.notify("Taken out of the queue.", variant="info")
        else:
            ctx.ops.notify("There is nothing to cancel: the job has ended.", variant="info")
        ctx.panel.set_data("overview.jobs", panel_sections.jobs(ctx))
        return True

    # Looking around

    @told
    def open_image(self, ctx: Any) -> Any:
        """Open an image with one of its objects selected."""
        open_sample(ctx, ctx.params["sample_id"], ctx.params.get("id"), ctx.params.get("field"))
        return True

    @told
    def show(self, ctx: Any) -> Any:
        """Show in the grid: the head of the queue as patches, or everything again."""
        settings = panel_settings.read(ctx)
        what = ctx.params["what"]
        view = collection(ctx) if shows_frames(ctx) else None
        if what == "queue":
            found = looking.review(ctx, settings, waits=True)
            items = found.queue(settings.order, REVIEWED_IN_GRID) if found is not None and found.run is not None else []
            if not items:
                raise ValueError("There is nothing to review.")
            images = all_images(ctx).select({item.sample_id for item in items})
            view = images.to_patches(settings.label_field).select([item.label_id for item in items], ordered=True)
        clear_selection(ctx)
        if view is None:
            # FiftyOne takes no view for no answer.
            ctx.ops.clear_view()
        else:
            ctx.ops.set_view(view=view)

    @told
    def open_frames(self, ctx: Any) -> Any:
        """Open a view of the frames of a dataset of videos; those that are no images yet are written beside their video."""
        videos = ctx.dataset
        num_frames = videos.count("frames")
        lie_on_disk = bool(num_frames) and videos.count("frames.filepath") == num_frames
        if not lie_on_disk and shutil.which("ffmpeg") is None:
            raise ValueError("FiftyOne makes images of frames with ffmpeg, which is not installed here: install it first.")
        ctx.ops.set_view(view=videos.to_frames() if lie_on_disk else videos.to_frames(sample_frames=True))

    @told
    def evaluation(self, ctx: Any) -> Any:
        """Open FiftyOne's Model Evaluation panel."""
        ctx.ops.open_panel(EVALUATION_PANEL)

    @told
    def prompt(self, ctx: Any) -> Any:
        """Open the form of one of RefSeg's operators."""
        ctx.prompt(f"{PLUGIN}/{ctx.params['operator']}", params=ctx.params.get("params") or {})

    @told
    def forget_selection(self, ctx: Any) -> Any:
        """Select nothing."""
        clear_selection(ctx)
