/* Section 2: masks and features of every image. */
import { h, mui } from "./app.js";
import { Choice, Jobs, Section, button, plural, row } from "./pieces.js";

export function Index({ data, overview, call, go, isNext, jobs }) {
  const { settings } = overview;
  const own = jobs.filter((job) => job.operator === "build_index");
  const isComplete = data && data.num_images > 0 && data.num_indexed >= data.num_images;
  const state = !data ? "…" : `${data.num_indexed.toLocaleString()} of ${plural(data.num_images, "image")}${data.size ? `, ${data.size}` : ""}`;
  return h(Section, {
    number: 2, title: "Index", state, isNext,
    hint: "Masks and features of every image, computed once. With them, segmenting with other references takes seconds.",
  },
  data ? h(mui.LinearProgress, {
    variant: "determinate", value: data.num_images ? (100 * data.num_indexed) / data.num_images : 0, "aria-label": "Indexed images",
    sx: { height: 6, borderRadius: 3, mb: 1.5 },
  }) : null,
  row({ alignItems: "flex-start" },
    h(Choice, {
      label: "Model", value: settings.model, choices: overview.models.map(([name]) => [name, name]), sx: { minWidth: 150, flex: 1 },
      about: (overview.models.find(([name]) => name === settings.model) || ["", ""])[1],
      onChoose: (model) => call("choose", { changes: { model }, sections: ["index", "segment"] }),
    }),
    button(data && data.num_indexed ? "Go on" : "Build index", () => go("index"), {
      primary: isNext, disabled: !data || own.length > 0, sx: { mt: 0.5, ...(isComplete ? { display: "none" } : {}) },
      tip: data && data.time_left ? `About ${data.time_left}` : "Images already done are left as they are",
    }),
    isComplete ? button("Look for changes", () => go("index"), { disabled: own.length > 0, sx: { mt: 0.5 }, tip: "Index images that are new or have changed" }) : null),
  h(Jobs, { jobs: own, call }));
}
