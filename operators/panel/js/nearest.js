/* Beside the object under review: the references that it is most like, of its class and of the runner-up. */
import { h, mui, useEffect, useRef, useState } from "./app.js";
import { usePictures } from "./calls.js";
import { box, help } from "./pieces.js";

/** What is known by label id; `wanted` holds queue items, the first of which is shown. Asked for once each. */
export function useNearest(call, wanted) {
  const [known, setKnown] = useState({});
  const asked = useRef(new Set());
  const missing = wanted.filter((item) => !asked.current.has(item.label_id));
  useEffect(() => {
    if (!missing.length) return;
    missing.forEach((item) => asked.current.add(item.label_id));
    const plain = missing.map(({ label_id, sample_id, label, runner_up }) => ({ label_id, sample_id, label, runner_up }));
    call("nearest", { wanted: plain }).then((found) => {
      if (!found) plain.forEach((item) => asked.current.delete(item.label_id));
      else setKnown((before) => ({ ...before, ...found }));
    });
  }, [missing.map((item) => item.label_id).join()]);
  return known;
}

/** Two columns of crops; their room is kept while they are asked for, so that nothing moves. */
export function Nearest({ found, call }) {
  const items = found ? found.classes.flatMap((entry) => entry.items) : [];
  const pictures = usePictures(call, items, false);
  const crop = (name) => (item) => h(mui.Tooltip, {
    key: item.id, describeChild: true, title: item.similarity === null ? `A reference of ${name}` : `A reference of ${name}, ${item.similarity.toFixed(2)} like the object`,
  },
  h("button", {
    "aria-label": `Open the reference of ${name}`, onClick: () => call("open_image", { id: item.id, field: item.field, sample_id: item.sample_id }),
    style: { display: "block", padding: 0, border: 0, background: "none", cursor: "pointer", textAlign: "center", color: "inherit" },
  },
  h("img", {
    src: pictures[item.id] || undefined, alt: "", width: 48, height: 48,
    style: { display: "block", objectFit: "cover", borderRadius: 4, border: "1px solid #8888", boxSizing: "border-box", background: "#8884" },
  }),
  help(item.similarity === null ? "" : item.similarity.toFixed(2))));
  return h("div", { role: "group", "aria-label": "Nearest references", style: { minHeight: 96, width: 108 } },
    found ? h(mui.Tooltip, { title: found.about, describeChild: true }, h("div", { tabIndex: 0 }, help(found.short))) : null,
    found ? box({ display: "grid", gridTemplateColumns: "repeat(2, 50px)", columnGap: 1, alignItems: "start" }, found.classes.map(({ name, items: own }) => box({ key: name, display: "grid", rowGap: 0.5 },
      h("div", { title: name, style: { fontSize: 12, fontWeight: 600, overflow: "hidden", textOverflow: "ellipsis", whiteSpace: "nowrap" } }, name),
      own.length ? own.map(crop(name)) : help("none to show")))) : null);
}
