"""Compare a candidate index with its dataset, check it, and give back the space that it does not need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import fiftyone.operators.types as types

from .forms.constants import SKIPS_IN_RESULT
from .forms.form import Form
from .forms.indexes import index_records
from .forms.inputs import index_input
from .forms.messages import count, listing, size
from .forms.selection import collection
from .running.base import RefSegOperator, Result, Work


class IndexStatus(RefSegOperator):
    """Says what a candidate index holds."""

    title = "Index status"
    summary = "See which images are indexed, check the index, and give back space that it does not need"
    kept_when_cancelled = "the index holds the images that it held"

    def resolve_input(self, ctx: Any) -> types.Property:
        """Which index, and what else to do with it."""
        form = Form(ctx, "Index status", "Compare the candidate index with the dataset and its files as they are now")
        if form.usable:
            record = index_input(form, proposes=True)
            if record is not None:
                form.notice("chosen", record.describe())
            description = "Read all of it and check every candidate; images found damaged count as not indexed"
            form.switch("verify", False, "Verify", description)
            description = (
                "Remove what belongs to no image of the dataset any more, and merge small files. Their space is free when the "
                "index is built or compacted again after ten minutes: others may be reading them"
            )
            form.switch("compact", False, "Compact", description)
        return form.done()

    def work(self, ctx: Any) -> Work[Result]:
        """Verify and compact where asked for, then compare."""
        from refseg.dataset import open_index
        from refseg.progress import Progress

        yield Progress(0, 1, "opening the index")
        records = {record.key: record for record in index_records(ctx)}
        index = open_index(collection(ctx), uri=records[ctx.params.get("index") or next(reversed(records))].uri)
        verify = given_back = None
        if ctx.params.get("verify"):
            found = yield from index.iter_verify()
            verify = {
                "num_images": found.num_images,
                "num_candidates": found.num_candidates,
                "num_damaged": len(found.damaged),
                "damaged": [list(pair) for pair in found.damaged[:SKIPS_IN_RESULT]],
            }
        if ctx.params.get("compact"):
            yield Progress(0, 1, "compacting")
            given_back = index.compact()
            yield Progress(1, 1, "compacting")
        status = index.status()
        return {
            "status": {**asdict(status), "bytes_per_image": status.bytes_per_image},
            "verify": verify,
            "bytes_given_back": given_back,
        }

    def tell(self, ctx: Any, result: Result) -> Iterator[Any]:
        """Show it in words, to be read as long as one likes."""
        outputs = types.Object()
        lines = describe(result)
        for label in lines:
            outputs.str(label, label=label, view=types.LabelValueView(read_only=True))
        shown = types.Property(outputs, view=types.View(label="Index status"))
        yield ctx.ops.show_output(shown.to_json(), lines)

    def __call__(
        self,
        sample_collection: Any,
        index: str | None = None,
        verify: bool = False,
        compact: bool = False,
        delegate: bool = False,
        delegation_target: str | None = None,
    ) -> Any:
        """Compare a candidate index with the dataset and its files as they are now.

        Args:
            sample_collection: the dataset, or a view of it.
            index: the key of the run that records it; by default the index used last.
            verify: read all of it and check every candidate; damaged images count as not indexed afterwards.
            compact: remove what belongs to no image of the dataset any more, and merge small files. The files stay ten
                minutes for those who read them, and go with the next build or compaction after that.
            delegate: queue the job instead of running it now.
            delegation_target: of the job, if delegated.

        Returns:
            A `fiftyone.operators.ExecutionResult` (in a notebook a task of it) whose `result` holds `status`
            (`uri`, `model`, `exact`, `num_samples`, `num_indexed`, `num_changed`, `num_deleted`, `num_candidates`,
            `num_unread_rows`, `num_bytes`, `num_looks`, `bytes_per_image`), `verify` (`num_images`, `num_candidates`,
            `num_damaged`, and `damaged`, the first hundred: sample id and reason; None where not asked for) and
            `bytes_given_back` (None where not asked for).
        """
        return self.call(locals())


def describe(result: Result) -> dict[str, str]:
    """An index in words, by what they are about."""
    status, verify, given_back = result["status"], result["verify"], result["bytes_given_back"]
    lines = {
        "Model": status["model"] + (", near-duplicates kept" if status["exact"] else ""),
        "Indexed": f"{status['num_indexed']:,} of {count(status['num_samples'], 'image')}",
    }
    if status["num_changed"]:
        lines["Changed"] = f"{count(status['num_changed'], 'file')} changed or gone since: build the index again to renew them"
    if status["num_deleted"] or status["num_unread_rows"]:
        gone, unread = count(status["num_deleted"], "image"), count(status["num_unread_rows"], "candidate")
        lines["Left over"] = f"{gone} no longer in the dataset, {unread} of no image: compacting gives their space back"
    total, each = size(status["num_bytes"]), size(status["bytes_per_image"])
    held = f"{count(status['num_candidates'], 'candidate')}, {count(status['num_looks'], 'second look')}"
    lines["Size"] = f"{held}, {total}, {each} an image"
    lines["Location"] = status["uri"]
    if verify is not None:
        lines["Verified"] = _describe_verify(verify)
    if given_back is not None:
        lines["Compacted"] = f"{size(abs(given_back))} {'less' if given_back >= 0 else 'more, by merging'}"
    return lines


def _describe_verify(verify: Result) -> str:
    if not verify["num_damaged"]:
        return f"every candidate of {count(verify['num_images'], 'image')} is sound"
    named = listing([f"{reason} (sample {sample_id})" for sample_id, reason in verify["damaged"]], verify["num_damaged"])
    return f"{count(verify['num_damaged'], 'image')} damaged, no longer counted as indexed: {named}"
