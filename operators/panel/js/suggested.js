/* Predictions that can be taken as references as they are; shown where there is something to suggest from. */
import { h, mui, useState } from "./app.js";
import { usePictures } from "./calls.js";
import { Crop, Jobs, Section, box, button, columns, help, plural, row, text } from "./pieces.js";
import { numDecided } from "./review.js";

/** Predictions that can be taken as references as they are; shown where there is something to suggest from. */
export function Suggested({ data, review, call, go, jobs }) {
  const [isUsing, setIsUsing] = useState(false);
  const own = jobs.filter((job) => job.operator === "suggest_references");
  const items = data.classes.flatMap((entry) => entry.items);
  const pictures = usePictures(call, items, false);
  const use = (chosen) => {
    setIsUsing(true);
    const places = chosen.map((item) => ({ label_id: item.id, sample_id: item.sample_id }));
    call("decide", { kind: "accept", items: places, as_references: true }).then(() => setIsUsing(false));
  };
  const state = !data.was_asked ? "not asked for yet" : data.num_open ? `${data.num_open.toLocaleString()} to use` : data.num_found ? "all decided" : "none";
  return h(Section, {
    number: "+", title: "Suggested references", state,
    hint: "Each of these predictions is, of all, the most like a reference of its class. Look before you use them.",
  },
  data.was_asked && !data.num_found ? text("No prediction is sure enough. References that look different from those there are help most.", { mb: 1 }) : null,
  data.classes.map((entry) => box({ key: entry.name, mb: 1, ...columns("84px 1fr"), columnGap: 1, alignItems: "center" },
    box({ minWidth: 0 },
      text(entry.name, { fontWeight: 600, overflow: "hidden", textOverflow: "ellipsis" }),
      help(plural(entry.items.length, "suggestion"))),
    box({ display: "flex", flexWrap: "wrap", columnGap: 2, rowGap: 0.75 }, entry.items.map((item) => box({ key: item.id, display: "flex", flexWrap: "wrap", alignItems: "center", gap: 0.75 },
      h(mui.Tooltip, { title: item.reason, describeChild: true }, box({}, h(Crop, {
        picture: pictures[item.id], alt: `Suggested ${entry.name}, score ${item.score.toFixed(2)}`, side: 52,
        onClick: () => call("open_image", { id: item.id, field: item.field, sample_id: item.sample_id }),
      }))),
      box({},
        help(`score ${item.score.toFixed(2)}`),
        button("Use as reference", () => use([item]), { disabled: isUsing, sx: { fontSize: 12, px: 0.75, py: 0 } }))))))),
  row({ mt: 1 },
    button(data.was_asked ? "Suggest again" : "Suggest references", () => go("suggest"), { disabled: own.length > 0, tip: "Compares every prediction with every reference, by the index" }),
    items.length > 1 ? button(`Use all ${items.length}`, () => use(items), { disabled: isUsing, tip: "All of them become references" }) : null,
    data.was_asked && numDecided(review) ? button("Undo", () => call("undo"), { tip: "Takes the last decision back" }) : null,
    data.num_found > data.num_open ? text("“Update” learns from those that you used.", { color: "text.secondary" }) : null),
  h(Jobs, { jobs: own, call }));
}
