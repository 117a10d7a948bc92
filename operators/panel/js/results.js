/* Section 5: how good predictions are. */
import { h, mui } from "./app.js";
import { GREEN, Jobs, RED, Section, box, button, help, plural, row, text } from "./pieces.js";
import { numDecided } from "./review.js";
import { ago } from "./times.js";

const figure = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));

export function Results({ data, review, call, go, isNext, jobs }) {
  const own = jobs.filter((job) => job.operator === "evaluate");
  const measured = data && data.evaluation;
  const leftOut = measured ? [[measured.num_skipped, "image"], [measured.num_left_out, "label"]].filter(([number]) => number).map(([number, noun]) => plural(number, noun)) : [];
  const decided = numDecided(review);
  const state = !data ? "…" : measured ? `mask AP ${figure(measured.mask_ap ?? measured.box_ap)}` : decided ? `${Math.round(100 * review.acceptance_rate)} % accepted` : "not measured yet";
  const cells = (values, sx) => values.map((value, number) => h("td", { key: number, style: { padding: "2px 14px 2px 0", ...sx } }, value));
  return h(Section, {
    number: 5, title: "Results", state, isNext,
    hint: "Against ground truth where there is any; otherwise, how often predictions were right when you reviewed them.",
  },
  measured ? box({ mb: 1 },
    h("table", { "aria-label": "Average precision", style: { borderCollapse: "collapse", fontSize: 13 } },
      h("thead", null, h("tr", { style: { textAlign: "left", opacity: 0.7 } }, cells(["", "mask AP", "AP50", "box AP"]))),
      h("tbody", null,
        h("tr", { style: { fontWeight: 600 } }, cells(["all classes", figure(measured.mask_ap), figure(measured.mask_ap50), figure(measured.box_ap)])),
        measured.per_class.map(([name, masks, boxes]) => h("tr", { key: name }, cells([name, figure(masks), "", figure(boxes)]))))),
    help(`${plural(measured.num_images, "image")} with ${plural(measured.num_ground_truth, "object")} of “${measured.gt_field}”, ${measured.at ? ago(measured.at) : "earlier"}${data.num_reference_images ? `; images that hold references (${data.num_reference_images} now) count too, and flatter the figures` : ""}`),
    measured.without_references.length ? text(`Without a reference, so never found: ${measured.without_references.join(", ")}. Add references of them to have them found.`, { color: "warning.main" }) : null,
    leftOut.length ? text(`Left out, as they cannot be used: ${leftOut.join(" and ")}. The evaluation's message names them.`, { color: "warning.main" }) : null,
    [...measured.notes, measured.hint].map((note) => note && text(note, { color: "warning.main", overflowWrap: "anywhere" }, note))) : null,
  decided ? text(`Reviewed: ${review.num_accepted} accepted, ${review.num_rejected} rejected, ${review.num_relabelled} relabelled, ${review.num_fixed} fixed: ${Math.round(100 * review.acceptance_rate)} % accepted, ${Math.round(review.corrections_per_hundred)} corrections in a hundred objects`, { mb: 1 }) : null,
  data && data.histogram ? h(Histogram, data) : null,
  row({ mt: 1 },
    button("Evaluate", () => go("evaluate"), { primary: isNext, disabled: !data || !data.histogram || !data.truth_fields.length || own.length > 0, tip: "By COCO's rules, with masks" }),
    button("Open the evaluation", () => call("evaluation"), { disabled: !measured || !measured.eval_key }),
    data && !data.truth_fields.length ? text("No other field holds objects to compare with.", { color: "text.secondary" }) : null),
  h(Jobs, { jobs: own, call }));
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
        gridColumn: 1, gridRow: number + 4, lineHeight: 1.35, px: 0.5, bgcolor: "background.paper", overflowWrap: "anywhere", width: "fit-content",
        ...(isLeft(line) ? { ml: `calc(${100 * line.value}% + 1px)` } : { ml: "auto", mr: `${100 - 100 * line.value}%`, textAlign: "right" }),
      },
    }, `${line.value.toFixed(2)} ${line.names.join(", ") || "every class"}`)));
}
