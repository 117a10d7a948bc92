/* Section 3: predictions. */
import { h, mui, useEffect, useState } from "./app.js";
import { Changes } from "./changes.js";
import { SECTIONS } from "./names.js";
import { Choice, Field, Jobs, Section, box, button, check, columns, help, plural, row, text } from "./pieces.js";
import { ago } from "./times.js";

const SLIDER = { size: "small", min: 0, max: 1, step: 0.01, valueLabelDisplay: "auto" };

const ORIGINS = {
  calibrated: ["calibrated", "What suits its references best"],
  later: ["calibrated anew", "The next run finds what suits its references best"],
  default: ["default", "The model's own: what suits its references is not known"],
};

/** A class with the least score written, and where that comes from. */
function Threshold({ entry, onKeep, onReset, onChoose }) {
  const [value, setValue] = useState(entry.threshold);
  useEffect(() => setValue(entry.threshold), [entry.threshold, entry.origin]);
  const [origin, about] = ORIGINS[entry.origin] || [];
  return box({ ...columns("minmax(60px, 130px) minmax(72px, 1fr) 38px 86px", "repeat(2, minmax(0, 1fr))"), alignItems: "center", columnGap: 1, minHeight: 30 },
    check(entry.name, entry.chosen, onChoose, "Look for this class"),
    h(mui.Slider, {
      ...SLIDER, value, disabled: !entry.chosen, "aria-label": `Minimum score of ${entry.name}`, onChange: (_, next) => setValue(next),
      onChangeCommitted: (_, next) => onKeep(next), onKeyDown: (event) => event.stopPropagation(),
    }),
    text(value.toFixed(2), { textAlign: "right" }),
    entry.origin === "own"
      ? button(entry.can_be_calibrated ? "use calibrated" : "use default", onReset, {
        variant: "text", "aria-label": `${entry.can_be_calibrated ? "Use calibrated" : "Use default"} for ${entry.name}`,
        sx: { p: 0, minWidth: 0, fontSize: 12, justifyContent: "flex-start" },
      })
      : value === entry.threshold ? h(mui.Tooltip, { title: about, describeChild: true }, box({}, help(origin))) : box({}));
}

/** How masks are compared with references; closed, because few need it. */
function Matching({ matching, call }) {
  const [isOpen, setIsOpen] = useState(false);
  const { chosen, defaults, choices } = matching;
  const choose = (name, value) => call("choose", { changes: { matching: { [name]: value } }, sections: ["segment", "results"] });
  const changed = Object.keys(defaults).filter((name) => chosen[name] !== defaults[name]);
  const pick = (name, label) => h(Choice, {
    label, value: chosen[name], choices: choices[name].map(([value]) => [value, value]), sx: { flex: 1, minWidth: 150 },
    about: (choices[name].find(([value]) => value === chosen[name]) || ["", ""])[1], onChoose: (value) => choose(name, value),
  });
  return box({ my: 0.5 },
    row({}, button(`${isOpen ? "▾" : "▸"} Matching`, () => setIsOpen(!isOpen), { variant: "text", "aria-expanded": isOpen, sx: { px: 0.5 } }),
      changed.length ? help(`changed: ${changed.map((name) => name.replace("_", " ")).join(", ")}`) : null),
    h(mui.Collapse, { in: isOpen, unmountOnExit: true },
      box({ pl: 1, pb: 1 },
        row({ mb: 1.75 },
          check("Negatives", chosen.negatives, (value) => choose("negatives", value), "What resembles a negative more than its class scores lower"),
          check("Background", chosen.background, (value) => choose("background", value), "Drop masks that are more like what surrounds the references than like any class"),
          check("Scenes", chosen.scenes, (value) => choose("scenes", value), "A class also looks like the masks that show its references in their own images"),
          check("Whiten", chosen.whiten, (value) => choose("whiten", value), "Compare second looks by what sets them apart from everything else in the dataset"),
          changed.length ? button("Use defaults", () => call("choose", { changes: { matching: {} }, sections: ["segment", "results"] })) : null),
        row({ alignItems: "flex-start" }, pick("class_similarity", "Class similarity"), pick("overlaps", "Overlaps"), pick("second_look", "Second look")))));
}

export function Segment({ data, references, overview, call, go, isNext, jobs, start }) {
  const { settings } = overview;
  const { onlyView, setOnlyView } = start;
  const own = jobs.filter((job) => ["learn", "update", "segment", "segment_with_references"].includes(job.operator));
  const run = data && data.run;
  const isReady = Boolean(references && references.num_references) && !own.length;
  const chosen = data ? data.classes.filter((entry) => entry.chosen).map((entry) => entry.name) : [];
  const choose = (name, wanted) => {
    const next = wanted ? [...chosen, name] : chosen.filter((other) => other !== name);
    call("choose", { changes: { classes: next.length === data.classes.length ? null : next }, sections: ["segment"] });
  };
  const keepThreshold = (changes) => call("choose", { changes, sections: ["segment", "results"] });
  const moved = data ? data.classes.filter((entry) => entry.origin === "own") : [];
  const state = !data ? "…" : !run ? "not run yet" : `${run.preview ? "preview: " : ""}${run.state === "interrupted" ? "interrupted: " : ""}${run.found} in ${run.images}, ${run.at ? ago(run.at) : "earlier"}${run.num_skipped ? `; ${plural(run.num_skipped, "image")} skipped` : ""}`;
  return h(Section, {
    number: 3, title: "Segment", state, isNext,
    hint: "Classes to look for, and the least score that is written of each: higher keeps quiet where there is nothing, lower finds more.",
  },
  data ? data.classes.map((entry) => h(Threshold, {
    key: entry.name, entry, onChoose: (wanted) => choose(entry.name, wanted),
    onKeep: (value) => keepThreshold({ threshold: [entry.name, value] }), onReset: () => keepThreshold({ threshold: [entry.name, null] }),
  })) : null,
  moved.length > 1 ? row({ justifyContent: "flex-end" }, button("Use calibrated for all", () => keepThreshold({ thresholds: [] }), { variant: "text", sx: { fontSize: 12 } })) : null,
  h(Matching, { matching: overview.matching, call }),
  h(Field, {
    label: "Predictions", value: settings.label_field, about: "The field to write; those of an earlier run are replaced", fullWidth: true, sx: { my: 1 },
    onKeep: (label_field) => call("choose", { changes: { label_field }, sections: SECTIONS }),
  }),
  row({},
    button("Preview the best 100", () => go("preview"), { disabled: !isReady, tip: "Writes and shows the hundred images with the best scores, of those that are indexed" }),
    button(run && !run.preview ? "Segment again" : "Segment", () => go("segment"), { primary: isNext, disabled: !isReady || !chosen.length, tip: "Learns from new references first; images that are not indexed are computed" }),
    overview.selection.view ? check(`Only the view (${overview.selection.view})`, onlyView, setOnlyView, "Otherwise the whole dataset") : null),
  data && data.classes.length && !chosen.length ? text("Tick at least one class.", { color: "error.main", mt: 0.5 }) : null,
  h(Jobs, { jobs: own, call }),
  h(Changes, { run, call, isTold: Boolean((overview.failures || {}).segment) }));
}
