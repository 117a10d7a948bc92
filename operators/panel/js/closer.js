/* A class's row, opened: each example large, beside what the encoder sees of it, and the candidates that are most like it. */
import { h, mui, useEffect, useRef, useState } from "./app.js";
import { usePictures } from "./calls.js";
import { Crop, LIST, box, button, help, row } from "./pieces.js";

const CROP_SIDE = 144, NEAR_SIDE = 72;
const ASK_MILLISECONDS = 1000;

/**
 * What Python knows of some examples of a class by label id, what it notes, and whether more is to come; null before the first
 * answer. It is asked until all is there or the row is closed, and again whenever `changed` is another.
 */
function useLooked(call, name, ids, changed) {
  const [looked, setLooked] = useState(null);
  const [waits, setWaits] = useState(false);
  const shown = useRef("");
  const wanted = [name, ...ids].join();
  useEffect(() => {
    let isOpen = true, timer = null;
    if (shown.current !== wanted) setLooked(null);
    shown.current = wanted;
    const ask = async () => {
      const answer = await call("look_closer", { name, ids });
      if (!isOpen) return;
      setWaits(Boolean(answer && answer.waits));
      if (answer && answer.waits) timer = setTimeout(ask, ASK_MILLISECONDS);
      else if (answer) setLooked(answer);
    };
    ask();
    return () => { isOpen = false; clearTimeout(timer); };
  }, [wanted, changed]);
  return [looked, waits];
}

const FEATURES = { width: CROP_SIDE, height: CROP_SIDE, borderRadius: 4, boxSizing: "border-box", background: "#8884" };

/** The features of an example, or words in their place: they are to come, or cannot be had. */
function Features({ item, seen, isNew }) {
  if (seen && seen.pca) {
    const all = item.kind === "negative" ? "negatives" : "references";
    return h(mui.Tooltip, {
      describeChild: true,
      title: `Its patches, coloured by the three principal components of the features of all ${all} of the class shown here: alike patches have like colours`,
    }, h("img", { src: seen.pca, alt: `Features of this ${item.kind} of ${item.label}`, tabIndex: 0, style: { ...FEATURES, objectFit: "contain" } }));
  }
  const words = seen ? seen.problem || "Its features cannot be shown" : isNew ? "Not learnt yet" : "";
  return h("div", { style: { ...FEATURES, display: "grid", placeItems: "center", textAlign: "center", padding: 8, overflow: "hidden", overflowWrap: "anywhere" } }, help(words));
}

/** The candidates that an example is most like; pressing one opens its image. */
function NearestCandidates({ item, nearest, call }) {
  const open = (one, number) => h(mui.Tooltip, {
    key: number, describeChild: true, title: `${one.name}, ${one.similarity.toFixed(2)} like this ${item.kind}: press to open its image`,
  },
  h("button", {
    "aria-label": `Open candidate ${number + 1}, ${one.similarity.toFixed(2)} like this ${item.kind} of ${item.label}`,
    onClick: () => call("open_image", { sample_id: one.sample_id }),
    style: { display: "block", padding: 0, border: 0, background: "none", cursor: "pointer", textAlign: "center", color: "inherit" },
  },
  h(Crop, { picture: one.picture, alt: "", side: NEAR_SIDE }),
  help(one.similarity.toFixed(2))));
  return h("div", { role: "group", "aria-label": `Nearest candidates of this ${item.kind} of ${item.label}`, style: { marginTop: 4 } },
    help("Nearest candidates"), box({ ...LIST, mt: 0.25 }, nearest.map(open)));
}

/** The references and negatives of a class, large: what they show, how they fit, how they look to the model, and what can be done with each. */
export function Closer({ name, examples, about, tone, call, changed }) {
  const pictures = usePictures(call, examples, false, 2 * CROP_SIDE);
  const [looked, waits] = useLooked(call, name, examples.map((item) => item.id), changed);
  return box({ gridColumn: "1 / -1", mt: 0.5, mb: 1 },
    h("div", { role: "status" },
      waits ? help("Looking at the features of these objects, and for what is like them…") : null,
      looked ? looked.notes.map((note) => box({ key: note }, help(note))) : null),
    waits ? h(mui.LinearProgress, { "aria-label": `Looking closer at ${name}`, sx: { mt: 0.5, height: 4, borderRadius: 2 } }) : null,
    box({ display: "flex", flexWrap: "wrap", gap: 2, mt: 1 }, examples.map((item) => {
      const place = { id: item.id, field: item.field, sample_id: item.sample_id };
      const seen = looked && looked.found[item.id];
      return h("div", { key: item.id, role: "group", "aria-label": about(item), style: { width: 2 * CROP_SIDE + 8, maxWidth: "100%" } },
        row({},
          h(Crop, { picture: pictures[item.id], alt: about(item), side: CROP_SIDE, edge: `2px solid ${tone(item)}`, onClick: () => call("open_image", place) }),
          h(Features, { item, seen, isNew: Boolean(looked && !looked.failed) })),
        help(about(item)),
        row({ mt: 0.5 }, button("Open image", () => call("open_image", place)), button("Remove", () => call("remove", place))),
        seen && seen.nearest.length ? h(NearestCandidates, { item, nearest: seen.nearest, call }) : null);
    })));
}
