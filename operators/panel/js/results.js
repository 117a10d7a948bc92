/* Section 5: how good predictions are. */
import { h, mui, useState } from "./app.js";
import { Confusion } from "./confusion.js";
import { GREEN, Jobs, RED, Section, box, button, help, plural, row, text } from "./pieces.js";
import { numDecided } from "./review.js";
import { ago } from "./times.js";

const figure = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));
const share = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));
const CLASSES_SHOWN = 10;

export function Results({ data, review, overview, call, go, isNext, jobs }) {
  const own = jobs.filter((job) => job.operator === "evaluate");
  const measured = data && data.evaluation;
  const decided = numDecided(review);
  const state = !data ? "…" : measured ? `${measured.mask_ap === null ? "box" : "mask"} AP ${figure(measured.mask_ap ?? measured.box_ap)}` : decided ? `${Math.round(100 * review.acceptance_rate)} % accepted` : "not measured yet";
  return h(Section, {
    number: 5, title: "Results", state, isNext,
    hint: "Against ground truth where there is any; otherwise, how often predictions were right when you reviewed them.",
  },
  measured ? box({ mb: 1.5 },
    h(Classes, { measured, call }),
    h(About, { measured, data, call }),
    h(Confusion, { table: measured.confusion, call })) : null,
  decided ? h(Decided, { review, decided }) : null,
  data && data.histogram ? h(Histogram, data) : null,
  row({ mt: 1 },
    button("Evaluate", () => go("evaluate"), { primary: isNext, disabled: !data || !data.histogram || !data.truth_fields.length || own.length > 0, tip: "By COCO's rules, with masks" }),
    button("Open the evaluation", () => call("evaluation"), { disabled: !measured || !measured.eval_key }),
    button("Counts and areas…", () => call("prompt", { operator: "write_counts", params: { field: overview.settings.label_field } }), { disabled: !data || !data.histogram, tip: "How many objects of each class an image holds, and how large they are" }),
    button("Merge accepted into a field…", () => call("prompt", { operator: "merge_accepted", params: { accepted_field: overview.settings.accepted_field } }), { disabled: !review || !review.num_accepted, tip: `Copies what you accepted, in the field ${overview.settings.accepted_field}, to another one` }),
    data && !data.truth_fields.length ? text("No other field holds objects to compare with.", { color: "text.secondary" }) : null),
  h(Jobs, { jobs: own, call }));
}

/** A row for each class of ground truth; its name opens its objects. */
function Classes({ measured, call }) {
  const [showsAll, setShowsAll] = useState(false);
  const rows = showsAll ? measured.classes : measured.classes.slice(0, CLASSES_SHOWN);
  const { num_ground_truth } = measured;
  const sum = (name) => measured.classes.reduce((total, entry) => total + (entry[name] || 0), 0);
  const isKnown = measured.classes.some((entry) => entry.num_truth !== null);
  const all = { ap: measured.mask_ap ?? measured.box_ap, ap50: measured.mask_ap50 ?? measured.box_ap50, precision: isKnown && sum("num_predictions") ? sum("num_found") / sum("num_predictions") : null, recall: isKnown && sum("num_truth") ? sum("num_found") / sum("num_truth") : null };
  const cell = (content, key, tip) => h("td", { key, title: tip, style: { padding: key ? "2px 0 2px 10px" : "2px 0", textAlign: key ? "right" : "left", whiteSpace: key ? "nowrap" : "normal", verticalAlign: "top", overflowWrap: "anywhere" } }, content);
  const figures = (entry) => [
    cell(figure(entry.ap), 1), cell(figure(entry.ap50), 2),
    cell(share(entry.precision), 3, entry.num_predictions ? `${entry.num_found} of ${plural(entry.num_predictions, "prediction")} are right` : undefined),
    cell(share(entry.recall), 4, entry.num_truth ? `${entry.num_found} of ${plural(entry.num_truth, "object")} were found` : undefined),
  ];
  const heads = ["class, objects", measured.mask_ap === null ? "box AP" : "mask AP", "AP50", "precision", "recall"];
  const named = (name, number) => h("span", null, name, number === null ? "" : h("span", { style: { opacity: 0.8 } }, ` ${number.toLocaleString()}`));
  const below = (entry) => (entry.taken_for
    ? h("div", null, link(`taken for ${entry.taken_for[0]} ${entry.taken_for[1]}`, () => call("show_cell", { truth: entry.name, predicted: entry.taken_for[0] }), `Show what is ${entry.name} and was taken for ${entry.taken_for[0]}`, 12))
    : entry.has_reference ? null : help("has no reference"));
  const others = showsAll || measured.classes.length <= CLASSES_SHOWN ? measured.not_compared : [];
  return box({},
    h("table", { "aria-label": "Average precision", style: { borderCollapse: "collapse", fontSize: 13, maxWidth: "100%" } },
      h("thead", null, h("tr", null, heads.map((name, number) => h("th", { key: name, scope: "col", style: { padding: number ? "2px 0 2px 10px" : "2px 0", fontWeight: 400, fontSize: 12, opacity: 0.8, textAlign: number ? "right" : "left" } }, name)))),
      h("tbody", null,
        h("tr", { style: { fontWeight: 600 } }, cell(named("all classes", num_ground_truth)), figures(all)),
        rows.map((entry) => h("tr", { key: entry.name },
          cell(h("div", null, named(link(entry.name, () => call("show_class", { name: entry.name }), `Show the objects of ${entry.name} as patches`), entry.num_truth), below(entry))),
          figures(entry))),
        others.map(([name, number]) => h("tr", { key: name, style: { opacity: 0.8 } }, cell(h("div", null, named(name, number), help("was not looked for"))), [1, 2, 3, 4].map((column) => cell("–", column)))))),
    measured.classes.length > CLASSES_SHOWN ? button(showsAll ? "Show fewer classes" : `Show all ${measured.classes.length + measured.not_compared.length} classes`, () => setShowsAll(!showsAll), { sx: { mt: 0.5 } }) : null);
}

const link = (words, onClick, tip, fontSize = 13) => h(mui.Link, { component: "button", type: "button", onClick, title: tip, underline: "always", sx: { color: "text.primary", textDecorationColor: "currentColor", fontSize, textAlign: "left", verticalAlign: "baseline" } }, words);

/** What the figures are of, and what they leave out. */
function About({ measured, data, call }) {
  const from = measured.least.length === 1 ? ` of ${measured.least[0].toFixed(2)} or more` : measured.least.length ? " from the least score of their class on" : "";
  const outside = measured.num_outside ? ` ${plural(measured.num_outside, "image")} outside the view that was evaluated ${measured.num_outside === 1 ? "is" : "are"} left out.` : "";
  const notCompared = measured.not_compared.length ? ` Left out of the means: ${measured.not_compared.map(([name]) => name).join(", ")}, which the last run was not to look for.` : "";
  return box({ mt: 0.5 },
    help(`${plural(measured.num_images, "image")} with ${plural(measured.num_ground_truth, "object")} of “${measured.gt_field}”, ${measured.at ? ago(measured.at) : "earlier"}${data.num_reference_images ? `; images that hold references (${data.num_reference_images} now) count too, and flatter the figures` : ""}. Precision and recall are of predictions${from}, at an IoU of 0.5.${outside}${notCompared}`),
    measured.without_references.length ? text(`Without a reference, so never found: ${measured.without_references.join(", ")}. Add references of them to have them found.`, { color: "warning.main" }) : null,
    measured.num_skipped ? row({}, text(`Left out, as they cannot be read: ${plural(measured.num_skipped, "image")}.`, { color: "warning.main" }), button("Show these images", () => call("show_left_out"))) : null,
    measured.num_left_out ? text(`Left out, as they cannot be used: ${plural(measured.num_left_out, "label")}. The evaluation's message names them.`, { color: "warning.main" }) : null,
    [...measured.notes, measured.hint].map((note) => note && text(note, { color: "warning.main", overflowWrap: "anywhere" }, note)));
}

/** What the review came to. */
function Decided({ review, decided }) {
  const corrected = review.num_rejected + review.num_relabelled + review.num_fixed;
  const percent = (number) => `${Math.round((100 * number) / decided)} %`;
  return box({ mb: 1 },
    text(`Accepted as they were: ${review.num_accepted.toLocaleString()} of ${decided.toLocaleString()} (${percent(review.num_accepted)}). Corrected: ${corrected.toLocaleString()} of ${decided.toLocaleString()} (${percent(corrected)}).`),
    help(`${review.num_accepted} accepted, ${review.num_rejected} rejected, ${review.num_relabelled} relabelled, ${review.num_fixed} fixed. ${review.num_open ? `${plural(review.num_open, "prediction")} that nobody has decided on ${review.num_open === 1 ? "does" : "do"} not count.` : ""}`));
}

/**
 * Scores of the predictions, and the least score written of each class: a line down to its own row of names. All in one column
 * of a grid, so that lines reach their names however many rows those above them take.
 */
function Histogram({ histogram, thresholds }) {
  const { counts, num } = histogram;
  const most = Math.max(1, ...counts);
  const width = 100 / counts.length;
  // Names lie towards the middle of their line, and in this order no line crosses the names of another.
  const isLeft = ({ value }) => value < 0.5;
  const lines = [...thresholds.filter(isLeft).reverse(), ...thresholds.filter((line) => !isLeft(line))];
  return box({ mb: 1, display: "grid", gridTemplateColumns: "minmax(0, 1fr)" },
    text(`Scores of ${plural(num, "prediction")}, and the least score written of each class`, { color: "text.secondary" }),
    h("svg", { role: "img", "aria-label": "Histogram of scores", viewBox: "0 0 100 30", preserveAspectRatio: "none", style: { width: "100%", height: 90, display: "block", gridRow: 2, gridColumn: 1 } },
      counts.map((count, number) => h("rect", { key: number, x: number * width + 0.3, width: width - 0.6, y: 29 - 28 * (count / most), height: 28 * (count / most), fill: GREEN }, h("title", null, `${(number / counts.length).toFixed(2)} to ${((number + 1) / counts.length).toFixed(2)}: ${count}`))),
      h("line", { x1: 0, x2: 100, y1: 29, y2: 29, stroke: "currentColor", strokeWidth: 0.2 })),
    row({ justifyContent: "space-between", gridRow: 3, gridColumn: 1 }, help("0"), help("1")),
    lines.map(({ value }, number) => h("div", { key: value, style: { gridColumn: 1, gridRow: `2 / ${number + 5}`, marginLeft: `${100 * value}%`, width: 0, borderLeft: `1px dashed ${RED}` } })),
    lines.map((line, number) => h(mui.Typography, {
      key: line.value, variant: "caption", component: "div",
      sx: {
        fontSize: 12,
        gridColumn: 1, gridRow: number + 4, lineHeight: 1.35, px: 0.5, bgcolor: "background.paper", overflowWrap: "anywhere", width: "fit-content",
        ...(isLeft(line) ? { ml: `calc(${100 * line.value}% + 1px)` } : { ml: "auto", mr: `${100 - 100 * line.value}%`, textAlign: "right" }),
      },
    }, `${line.value.toFixed(2)} ${line.names.join(", ") || "every class"}`)));
}
