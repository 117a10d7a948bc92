/* Section 2: masks and features of every image. */
import { h, mui, useState } from "./app.js";
import { Choice, Field, Jobs, Section, box, button, help, plural, row, text } from "./pieces.js";

/** Weights on the server's disk instead of a download; closed, because few need it. */
function Files({ files, weights, model, call }) {
  const isUsed = Boolean(files.sam2_path || files.dinov2_path);
  const [isOpen, setIsOpen] = useState(false);
  const field = (name, label, about) => h(Field, {
    label, value: files[name] || "", about, fullWidth: true, onKeep: (path) => call("use_files", { [name]: path.trim() }),
  });
  return box({ mt: 0.5 },
    row({}, button(`${isOpen ? "▾" : "▸"} Weights from files`, () => setIsOpen(!isOpen), { variant: "text", "aria-expanded": isOpen, sx: { px: 0.5 } }),
      isUsed ? help(`${model} is loaded from files`) : null),
    h(mui.Collapse, { in: isOpen, unmountOnExit: true },
      box({ pl: 1, pt: 1, display: "grid", gap: 1.5 },
        ...Object.entries(weights).map(([name, [label, about]]) =>
          field(name, label, `${about}, by its whole path on the server; empty for the download`)))));
}

/** What the index takes on the disk, what the rest will, and what is free. */
function Room({ data }) {
  const { needed, free, fits } = data.room;
  const parts = [data.size && `${data.size} taken`, needed && `about ${needed} ${data.size ? "more " : ""}to come`, free && `${free} free`].filter(Boolean);
  if (!fits) return text(`There is too little room: ${parts.join(", ")}. Free some space, or build it elsewhere with the operator “Build index”.`, { color: "warning.main", mt: 1 });
  return box({ mt: 1 }, help(`Disk: ${parts.join(" · ")}`));
}

export function Index({ data, overview, call, go, isNext, jobs }) {
  const { settings } = overview;
  const own = jobs.filter((job) => job.operator === "build_index");
  // While a build counts, what it counts stands everywhere: the section's own number is that of before.
  const counted = own.find((job) => job.total && job.step.startsWith("images"));
  const [done, total] = counted ? [counted.done, counted.total] : data ? [data.num_indexed, data.num_images] : [0, 0];
  const isComplete = data && data.num_images > 0 && data.num_indexed >= data.num_images;
  const state = !data ? "…" : `${done.toLocaleString()} of ${plural(total, "image")}${data.size ? `, ${data.size}` : ""}`;
  const models = data ? data.models : [];
  return h(Section, {
    number: 2, title: "Index", state, isNext,
    hint: "Masks and features of every image, computed once. With them, segmenting with other references takes seconds.",
  },
  data ? h(mui.LinearProgress, {
    variant: "determinate", value: total ? (100 * done) / total : 0, "aria-label": "Indexed images",
    sx: { height: 6, borderRadius: 3, mb: 1.5 },
  }) : null,
  row({ alignItems: "flex-start" },
    h(Choice, {
      label: "Model", value: data ? settings.model : "", choices: models.map(({ name, label }) => [name, label]), sx: { flex: "1 1 290px" },
      about: (models.find(({ name }) => name === settings.model) || { about: "" }).about,
      onChoose: (model) => call("choose", { changes: { model }, sections: ["index", "segment"] }),
    }),
    button(data && data.num_indexed ? "Go on" : "Build index", () => go("index"), {
      primary: isNext, disabled: !data || own.length > 0, sx: { mt: 0.5, ...(isComplete ? { display: "none" } : {}) },
      tip: "Images already done are left as they are",
    }),
    isComplete ? button("Look for changes", () => go("index"), { disabled: own.length > 0, sx: { mt: 0.5 }, tip: "Index images that are new or have changed" }) : null),
  data && data.lent ? help(`${data.lent.model} has an index of ${plural(data.lent.num_indexed, "image")}, which serves ${settings.model} too: both are the same models. “Build index” makes one of its own.`) : null,
  data ? h(Room, { data }) : null,
  data ? h(Files, { files: data.files, weights: data.weights, model: settings.model, call }) : null,
  h(Jobs, { jobs: own, call, hasBar: !counted }));
}
