/* Section 4: one prediction after the other, least sure first. */
import { h, mui, useEffect, useRef, useState } from "./app.js";
import { usePictures } from "./calls.js";
import { Choice, Field, Section, box, button, check, plural, row, text } from "./pieces.js";

const PREFETCHED = 4; // pictures that are loaded ahead

export const numDecided = (review) => (review ? review.num_accepted + review.num_rejected + review.num_relabelled + review.num_fixed : 0);

export function Review({ data, references, overview, call, go, isNext, jobs }) {
  const { settings } = overview;
  const [gone, setGone] = useState(new Set());
  const [relabels, setRelabels] = useState(false);
  const [skipped, setSkipped] = useState(0);
  const card = useRef(null);
  const items = data ? data.items.filter((item) => !gone.has(item.label_id)) : [];
  const position = Math.min(skipped, Math.max(0, items.length - 1));
  const item = items[position];
  const ahead = items.slice(position, position + PREFETCHED).map((entry) => ({ id: entry.label_id, field: settings.label_field, sample_id: entry.sample_id }));
  const pictures = usePictures(call, ahead, true);
  const classes = data && item ? data.classes.filter((name) => name !== item.label) : [];
  const num_open = data ? Math.max(0, data.num_open - data.items.filter((entry) => gone.has(entry.label_id)).length) : 0;
  useEffect(() => { if (data) setGone((before) => new Set([...before].filter((id) => data.items.some((entry) => entry.label_id === id)))); }, [data]);

  const decide = (kind, label) => {
    if (!item) return;
    setRelabels(false);
    setGone((before) => new Set([...before, item.label_id]));
    call("decide", { kind, item: { label_id: item.label_id, sample_id: item.sample_id }, label }).then((done) => {
      if (!done) setGone((before) => new Set([...before].filter((id) => id !== item.label_id)));
    });
    if (card.current) card.current.focus({ preventScroll: true });
  };
  const keys = {
    a: () => decide("accept"), r: () => decide("reject"), l: () => setRelabels(true), f: () => decide("fix"),
    s: () => setSkipped(position + 1 < items.length ? position + 1 : 0), u: () => call("undo"), escape: () => setRelabels(false),
  };
  const onKeyDown = (event) => {
    const key = event.key.toLowerCase();
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "TEXTAREA"].includes(event.target.tagName)) return;
    const number = relabels && /^[1-9]$/.test(key) ? classes[Number(key) - 1] : null;
    if (number) decide("relabel", number);
    else if (keys[key]) keys[key]();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const decided = numDecided(data);
  const state = !data ? "…" : `${num_open.toLocaleString()} to review${decided ? `, ${decided.toLocaleString()} decided` : ""}`;
  const { selection } = overview;
  const numSelected = selection.what === "object" ? selection.num_references + selection.num_negatives : 0;
  const isRunning = jobs.some((job) => ["learn", "update", "segment"].includes(job.operator));
  return h(Section, {
    number: 4, title: "Review", state, isNext,
    hint: "What the model is least sure of comes first. Each decision is kept at once; “Update” learns from them.",
  },
  item ? h(mui.Box, {
    ref: card, tabIndex: 0, onKeyDown, role: "group", "aria-label": "Object to review",
    sx: { outline: "none", borderRadius: 1, border: "1px solid", borderColor: "divider", p: 1, "&:focus": { borderColor: "primary.main" } },
  },
  box({ position: "relative", width: "100%", aspectRatio: "8 / 5", bgcolor: "#222", borderRadius: 1, overflow: "hidden", mb: 1 },
    pictures[item.label_id]
      ? h("img", { src: pictures[item.label_id], alt: `${item.label}, score ${item.score.toFixed(2)}`, style: { width: "100%", height: "100%", objectFit: "contain" } })
      : pictures[item.label_id] === null ? box({ p: 2, color: "#ddd" }, "This image cannot be read. Skip it, or reject the object.") : null),
  row({ mb: 1 }, text(item.label, { fontWeight: 600 }), text(`score ${item.score.toFixed(2)}`), text(item.why, { color: "text.secondary", ml: "auto" })),
  relabels
    ? row({}, text("It is:"), classes.map((name, number) => button(number < 9 ? `${name} (${number + 1})` : name, () => decide("relabel", name), { key: name })),
      h(Field, { label: "Another (Enter)", value: "", onlyOnEnter: true, sx: { width: 140 }, onKeep: async (name) => { if (name.trim()) decide("relabel", name.trim()); return null; } }),
      button("Back", () => setRelabels(false)))
    : row({},
      button("Accept (A)", keys.a, { primary: isNext, tip: `Copies it to the field ${settings.accepted_field}` }),
      button("Reject (R)", keys.r, { tip: "Keeps it as an example of what this class is not" }),
      button("Relabel (L)", keys.l, { tip: "Accepts it as another class" }),
      button("Fix (F)", keys.f, { tip: "Accepts it and opens the image, to correct it with the App's annotation tools" }),
      button("Skip (S)", keys.s), button("Undo (U)", keys.u, { disabled: !decided, tip: "Takes the last decision back; what it moved or changed does not come back" })))
    : data ? row({}, text(data.num_open ? "Loading…" : decided ? "Everything is decided." : "Nothing to review yet: segment first."), decided ? button("Undo", keys.u) : null) : null,
  numSelected
    ? row({ mt: 1 }, text(`${plural(numSelected, "object")} selected:`),
      button("Accept them", () => call("decide_selected", { kind: "accept" })), button("Reject them", () => call("decide_selected", { kind: "reject" })),
      h(Choice, { label: "They are", value: "", choices: (data ? data.classes : []).map((name) => [name, name]), sx: { width: 110 }, onChoose: (label) => call("decide_selected", { kind: "relabel", label }) }))
    : null,
  row({ mt: 1 },
    button("Show in grid", () => call("show", { what: "queue" }), { disabled: !num_open, tip: "The next hundred as patches: select many, and accept or reject them at once" }),
    overview.selection.view ? button("Show all images", () => call("show", { what: "all" })) : null,
    h(Choice, {
      label: "Order", value: settings.order, choices: [["teaching", "least sure first"], ["score", "best score first"]], sx: { width: 150 },
      onChoose: (order) => call("choose", { changes: { order }, sections: ["review"] }),
    })),
  row({ mt: 1.5, alignItems: "flex-start" },
    h(Field, {
      label: "Accepted objects", value: settings.accepted_field, about: "The field they go to", sx: { flex: 1, minWidth: 130 },
      onKeep: (accepted_field) => call("choose", { changes: { accepted_field }, sections: ["suggested", "review", "results"] }),
    }),
    check("They become references", settings.as_references, (as_references) => call("choose", { changes: { as_references } }), "Otherwise they are kept as labels alone")),
  references && references.pending && data && (data.num_open || decided)
    ? row({ mt: 1 }, button("Update", () => go("update"), { primary: true, disabled: isRunning, tip: "Learns from what was decided, and segments the same images again as the last run did" }), text(`Not learnt yet: ${references.pending}`, { color: "text.secondary" }))
    : null);
}
