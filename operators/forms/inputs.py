"""What several forms ask for: references, prototypes, a model, an index, and what is chosen unless told otherwise."""

from __future__ import annotations

from typing import Any

from .constants import (
    DEMO_MARK,
    MODELS,
    NEGATIVE_TAG,
    PROTOTYPES_METHOD,
    PROTOTYPES_NAME,
    REFERENCE_FIELD,
    REFERENCE_TAG,
)
from .form import Form, object_fields
from .indexes import IndexRecord, index_records
from .machine import fitting_model
from .messages import count
from .models import model_choices
from .selection import selected_label_ids
from .weights import files_of, named_weights, problem_of


def kept_prototypes(ctx: Any) -> list[str]:
    """Names of the prototypes kept with the dataset, newest last."""
    from refseg.dataset import past_runs

    return [run.key for run in past_runs(ctx.dataset, [PROTOTYPES_METHOD])]


def reference_field_input(form: Form, label: str, description: str, name: str = "field") -> None:
    """Where the references are."""
    fields = object_fields(form.ctx)
    form.choice(name, fields, reference_field(form.ctx), label, description, no_objects(form.ctx))


def reference_field(ctx: Any) -> str | None:
    """The field to look for references in, unless told otherwise: that of the selection, `ground_truth`, or the first.

    What a run of RefSeg replaces comes last.
    """
    from refseg.dataset import prediction_fields

    own = prediction_fields(ctx.dataset)
    fields = sorted(object_fields(ctx), key=lambda name: name in own)
    selected = {label.get("field") for label in ctx.selected_labels}
    return next((field for field in [*sorted(selected, key=str), REFERENCE_FIELD, *fields] if field in fields), None)


def no_objects(ctx: Any) -> str:
    """What to say where no field holds objects."""
    return f"No field of dataset {ctx.dataset.name!r} holds detections or polylines: label some objects first."


def tag_input(form: Form) -> None:
    """The tag of references."""
    _tag_input(form, "tag", REFERENCE_TAG, "Tag", "The tag that marks references, on labels or on whole samples")


def source_input(form: Form) -> str:
    """Which objects are references; returns "tag", "selection" or "all"."""
    chosen = len(selected_label_ids(form.ctx, form.value("field", reference_field(form.ctx))) or ())
    choices = {"tag": "Objects with a tag", "all": "Every object"}
    if chosen:
        choices = {"selection": f"The selection ({count(chosen, 'object')})", **choices}
    default = default_source(form.ctx)
    form.choice("source", choices, default, "References", "Which objects show what to look for", "")
    source = str(form.value("source", default))
    if source == "tag":
        tag_input(form)
    return source


def default_source(ctx: Any) -> str:
    """The selection where there is one, else the tag."""
    field = ctx.params.get("field") or reference_field(ctx)
    return "selection" if field and selected_label_ids(ctx, field) else "tag"


def model_input(form: Form) -> None:
    """The preset, with what it takes on this dataset, and files in the place of its download."""
    default = default_model(form.ctx)
    choices = {choice.name: choice.label for choice in model_choices(form.ctx)}
    description = "Larger models find more and take longer. Models are downloaded once."
    form.choice("model", choices, default, "Model", description, "")
    model = form.value("model", default)
    if form.switch(
        "without_download", False, "Weights from files", "Load them from the server's disk instead of downloading them"
    ):
        kept = files_of(form.ctx, str(model))
        for name, (label, text) in named_weights(str(model)).items():
            text += f", kept with this dataset for {model!r}; by default {kept[name] or 'the download'}"
            form.text(name, None, label, text, problem_of(form.ctx, name, model))


def default_model(ctx: Any) -> str:
    """The model of the newest prototypes kept, so that a dataset stays with one; else what suits the images and the machine."""
    from refseg.dataset import newest_of

    newest = newest_of(ctx.dataset, PROTOTYPES_METHOD)
    model = None if newest is None else newest.config.get("model")
    if model in MODELS:
        return str(model)
    return "demo" if ctx.dataset.info.get(DEMO_MARK) else fitting_model()


def name_input(form: Form) -> None:
    """What the prototypes are called."""
    _name_input(form, default_name(form.ctx), "Name", "What the prototypes are called; they are kept with the dataset")


def name_of_changed_input(form: Form, source: str) -> None:
    """What prototypes are called that were changed; at first they take the place of those that they come from."""
    _name_input(form, source, "Keep as", "By default in place of the prototypes that are changed")


def _name_input(form: Form, default: str, label: str, description: str) -> None:
    """A name for prototypes; one that is taken, but for the default itself, asks whether to replace what has it."""
    name = str(form.value("name", default))
    is_taken = name != default and form.ctx.dataset.has_run(name)
    problem = None
    if not name.isidentifier():
        problem = f"{name!r} cannot name prototypes: use letters, digits and underscores, and begin with a letter."
    elif is_taken and name not in kept_prototypes(form.ctx):
        problem = f"The dataset has another run named {name!r}: choose another name."
    elif is_taken and not form.value("overwrite", False):
        problem = f"The dataset keeps prototypes named {name!r}: choose another name or tick 'Replace'."
    form.text("name", default, label, description, problem)
    if is_taken:
        form.switch("overwrite", False, "Replace", "Replace the prototypes of this name")


def build_inputs(form: Form) -> str:
    """Which objects are references and negatives, and what is made of them; returns the model's name."""
    reference_field_input(form, "Field", "Where the references are; objects with only a box serve too")
    source_input(form)
    negative_tag_input(form)
    form.names("classes", "Classes", "Only these; leave it empty for every class")
    model_input(form)
    calibrates_input(form)
    turned_input(form, str(form.value("name", default_name(form.ctx))))
    name_input(form)
    return str(form.value("model", default_model(form.ctx)))


def default_name(ctx: Any) -> str:
    """The first of `prototypes`, `prototypes_2` and so on that is free."""
    name, number = PROTOTYPES_NAME, 2
    while ctx.dataset.has_run(name):
        name, number = f"{PROTOTYPES_NAME}_{number}", number + 1
    return name


def calibrates_input(form: Form) -> None:
    """Whether prototypes are calibrated once they are built."""
    description = (
        "Find the threshold of each class from what else is to be seen in the images of its references, and in those marked as "
        "empty; images that are not indexed are computed"
    )
    form.switch("calibrates", True, "Calibrate thresholds", description)


def turned_input(form: Form, name: str) -> None:
    """Whether references are looked at turned and mirrored too; by default as before, see refseg.dataset.turned_before."""
    from refseg.dataset import turned_before

    before = turned_before(form.ctx.dataset, name)
    description = "For objects that lie any way up, eight passes a reference; not where left and right tell classes apart"
    form.switch("turned", before, "Turn and mirror references", description)


def prototypes_input(form: Form) -> str | None:
    """Which of the kept prototypes; returns their name, or None where there are none of this name."""
    kept = kept_prototypes(form.ctx)
    missing = f"The dataset {form.ctx.dataset.name!r} keeps no prototypes yet: run 'Build prototypes' first."
    newest = kept[-1] if kept else None
    form.choice("prototypes", kept, newest, "Prototypes", "What to look for", missing)
    chosen = form.value("prototypes", newest)
    return chosen if chosen in kept else None


def negative_tag_input(form: Form) -> None:
    """The tag of negatives."""
    description = "Labels with this tag are taken for a class and are not; what resembles them scores lower"
    _tag_input(form, "negative_tag", NEGATIVE_TAG, "Tag of negatives", description)


def _tag_input(form: Form, name: str, default: str, label: str, description: str) -> None:
    tag = form.value(name, default)
    problem = None if not isinstance(tag, str) or tag.strip() else "The tag must not be blank."
    form.text(name, default, label, description, problem)


def index_input(form: Form, *, proposes: bool) -> IndexRecord | None:
    """Which of the dataset's candidate indexes; asks where there are several.

    Args:
        form: to add to.
        proposes: whether the index used last is chosen at first.

    Returns:
        The record of the index chosen; None where there is none.
    """
    records = {record.key: record for record in index_records(form.ctx)}
    default = next(reversed(records), None) if proposes or len(records) == 1 else None
    if len(records) != 1 or form.value("index", default) != default:
        names = {key: record.describe() for key, record in records.items()}
        form.choice("index", names, default, "Index", "The one used last stands at the end", no_index(form.ctx))
    return records.get(form.value("index", default))


def no_index(ctx: Any) -> str:
    """What to say where the dataset has no candidate index."""
    return f"The dataset {ctx.dataset.name!r} keeps no candidate index yet: run 'Build index' first."
