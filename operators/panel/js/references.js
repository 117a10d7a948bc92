/* Section 1: objects that show what to look for. */
import { h, mui, selectedLabelTypes, useRecoilValue, useState } from "./app.js";
import { usePictures } from "./calls.js";
import { Closer } from "./closer.js";
import { Legends } from "./heatmap.js";
import { AMBER, Choice, Field, GREEN, Jobs, LIST, RED, Section, Thumbnail, box, button, columns, help, plural, row, text } from "./pieces.js";
import { ShowObject } from "./showing.js";

/** Where thresholds come from, and the images known to be empty. */
function Calibration({ data, call, go, jobs }) {
  const { calibration } = data;
  const isRunning = jobs.some((job) => ["calibrate", "learn", "update"].includes(job.operator));
  const parts = [
    calibration && calibration.text,
    data.num_empty && `${plural(data.num_empty, "image")} known to be empty`,
  ].filter(Boolean);
  const isWanted = calibration && !calibration.is_calibrated && !calibration.text && !data.pending;
  if (!parts.length && !isWanted) return null;
  return row({ mt: 1 },
    isWanted ? button("Calibrate", () => go("calibrate"), { disabled: isRunning, tip: "Find the minimum score that suits each class, from what else is to be seen in the images of its references" }) : null,
    parts.length ? help(parts.join(" · ")) : null);
}

export function References({ data, overview, call, go, isNext, jobs, onInspect }) {
  const { settings, selection } = overview;
  const numImages = selection.what === "image" ? selection.num_references + selection.num_negatives : 0;
  const areMarked = numImages > 0 && selection.num_marked === numImages;
  const types = useRecoilValue(selectedLabelTypes);
  const [isShowing, setIsShowing] = useState(false);
  const [opened, setOpened] = useState(null); // name of the class that is shown large
  const add = (only_negatives) => call("add", { only_negatives, alt_label_ids: Object.keys(types).filter((id) => types[id] === "alt") });
  const rows = data ? data.rows : [];
  const shown = rows.flatMap((entry) => [...entry.examples, ...entry.negatives]).concat(data ? data.other_negatives : []);
  const pictures = usePictures(call, shown, false);
  const about = (item) => {
    const what = item.kind === "negative" ? `Negative: not ${item.label}` : `Reference of ${item.label}`;
    const alike = item.similarity === null || item.similarity === undefined ? "" : `, ${item.similarity.toFixed(2)} like the others`;
    return item.problem ? `${what}: ${item.problem}` : what + alike;
  };
  const tone = (item) => (item.kind === "negative" ? RED : item.problem ? AMBER : GREEN);
  const strip = (items) => items.map((item) => h(Thumbnail, {
    key: item.id, item, picture: pictures[item.id], tone: tone(item), tip: about(item), call,
  }));
  const parts = [
    selection.num_references && `${plural(selection.num_references, selection.what)} as references`,
    selection.num_negatives && `${plural(selection.num_negatives, selection.what)} as negatives`,
  ].filter(Boolean);
  const state = !data ? "…" : data.num_references
    ? `${plural(data.num_references, "reference")} of ${plural(rows.length, "class")}${data.num_negatives ? `, ${plural(data.num_negatives, "negative")}` : ""}`
    : "none yet";
  return h(Section, {
    number: 1, title: "References", state, isNext,
    hint: "Objects that show what to look for. Select labels in an image, or images or patches in the grid; hold Alt to select what it is not.",
  },
  parts.length && !overview.similar
    ? row({ mb: 1.75 }, button(`Add ${parts.join(", ")}`, () => add(false), { primary: true }),
      selection.num_references ? button(selection.num_negatives ? "Add all as negatives" : "As negatives", () => add(true), { tip: "They look like a class and are none of it" }) : null,
      numImages ? button(areMarked ? "Not empty after all" : numImages === 1 ? "This image is empty" : "These images are empty", () => call("mark_empty", { unmark: areMarked }), { tip: areMarked ? "Takes the mark off" : "They hold no object of any class: whatever is taken for one there is a mistake to learn from" }) : null,
      selection.what === "object" && selection.num_references ? button("Find similar", () => call("prompt", { operator: "find_similar" }), { tip: "The objects of all indexed images that are most like what is selected" }) : null,
      button("Clear selection", () => call("forget_selection")))
    : null,
  isShowing ? h(ShowObject, { call, current: overview.current_sample, onClose: () => setIsShowing(false) })
    : row({ mb: 1.5 },
      button("Show an object", () => setIsShowing(true), { primary: isNext && !parts.length, tip: "Click on it in a picture: it needs no label" }),
      text("in a picture, without any label", { color: "text.secondary" })),
  overview.fields.length ? row({ mb: 1.5, alignItems: "flex-start" },
    h(Choice, {
      label: "Draw from", value: overview.fields.includes(settings.field) ? settings.field : "", choices: overview.fields.map((name) => [name, name]), sx: { minWidth: 130, flex: 1 },
      about: "Or let some be drawn from a labelled field", onChoose: (field) => call("choose", { changes: { field } }),
    }),
    h(Field, {
      label: "Shots", type: "number", value: settings.shots, about: "A class", sx: { width: 84 }, inputProps: { min: 1, step: 1 },
      onKeep: (value) => call("choose", { changes: { shots: Number(value) } }),
    }),
    button("Draw", () => call("draw"), { sx: { mt: 0.5 }, tip: "At random, at most one of a class from an image; replaces this field's references" })) : null,
  rows.map((entry) => box({ key: entry.name, mb: 1, ...columns("84px 1fr auto"), columnGap: 1, alignItems: "center" },
    box({ minWidth: 0 },
      h("button", {
        onClick: () => setOpened(opened === entry.name ? null : entry.name), "aria-expanded": opened === entry.name, "aria-label": `Look closer at ${entry.name}`,
        style: { all: "unset", cursor: "pointer", display: "flex", maxWidth: "100%" },
      }, text(opened === entry.name ? "▾" : "▸", { mr: 0.5 }), text(entry.name, { fontWeight: 600, overflow: "hidden", textOverflow: "ellipsis" })),
      help(entry.shots ? plural(entry.shots, "shot") : "no reference")),
    box(LIST, strip(entry.examples), strip(entry.negatives),
      entry.shots > entry.examples.length ? text(`and ${entry.shots - entry.examples.length} more`, { alignSelf: "center" }) : null),
    entry.quality === null ? box({}) : h(mui.Tooltip, { describeChild: true, title: "Quality: how alike its references are, each against the mean of the others" },
      box({ width: 56 },
        help(entry.quality.toFixed(2)),
        h(mui.LinearProgress, { variant: "determinate", value: 100 * Math.max(0, entry.quality), "aria-label": `Quality of ${entry.name}`, sx: { height: 6, borderRadius: 3 } }))),
    opened === entry.name ? h(Closer, { name: entry.name, examples: [...entry.examples, ...entry.negatives], about, tone, call, changed: `${jobs.length} ${data.pending}` }) : null,
    box({ gridColumn: "1 / -1" }, entry.short ? help(entry.short) : null, entry.problems.map((problem) => h(mui.Typography, { key: problem, variant: "caption", component: "div", sx: { color: AMBER } }, `Outlier: ${problem}`))))),
  data && data.removed
    ? row({ mb: 1 }, text(`Removed: ${data.removed}.`, { color: "text.secondary" }), button("Undo the removal", () => call("restore")))
    : null,
  data && data.num_other_negatives
    ? box({ mb: 1 }, text("Negatives of every class", { fontWeight: 600, mb: 0.5 }), box(LIST, strip(data.other_negatives)))
    : null,
  data && data.num_references
    ? row({ mt: 1 },
      button("Build prototypes", () => go("learn"), { disabled: (!data.pending && Boolean(data.prototypes)) || jobs.some((job) => job.operator === "learn"), tip: "Learn from the references, to see their quality; segmenting does so by itself" }),
      button("Inspect", onInspect, { disabled: !data.prototypes, tip: "What the references are worth, which of them hurt, and what would help next" }),
      button("Heatmap", () => call("prompt", { operator: "show_heatmap" }), { disabled: !data.prototypes, tip: "How similar each spot of an image is to a class: in colours over the images" }),
      data.pending ? text(`Not learnt yet: ${data.pending}`, { color: "text.secondary" }) : null)
    : null,
  h(Legends, { call }),
  data ? h(Calibration, { data, call, go, jobs }) : null,
  h(Jobs, { jobs: jobs.filter((job) => ["build_prototypes", "calibrate", "mine_negatives", "inspect_prototypes", "show_heatmap"].includes(job.operator)), call }));
}
