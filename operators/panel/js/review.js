/* Section 4: one prediction after the other, least sure first. */
import { h, mui, useEffect, useRef, useState } from "./app.js";
import { AcceptAbove } from "./above.js";
import { usePictures } from "./calls.js";
import { Closer, WHOLE, isSharp, useCloser, zoomed } from "./looking.js";
import { Nearest, useNearest } from "./nearest.js";
import { Choice, Field, Section, box, button, check, help, plural, row, text } from "./pieces.js";

const PREFETCHED = 4; // pictures that are loaded ahead
const KEYS = [
  ["A", "accept"], ["R", "reject"], ["L", "relabel, then 1 to 9"], ["F", "fix by hand"], ["S", "skip"], ["U", "undo"], ["O", "outline on or off"],
  ["+ − 0", "closer, farther, whole; or turn the wheel"], ["B", "accept all above a score"], ["G", "show in grid"], ["Esc", "back"], ["?", "these keys"],
];

export const numDecided = (review) => (review ? review.num_accepted + review.num_rejected + review.num_relabelled + review.num_fixed : 0);

export function Review({ data, references, overview, call, go, isNext, isUpdateNext, jobs }) {
  const { settings } = overview;
  const [gone, setGone] = useState(new Set());
  const [relabels, setRelabels] = useState(false);
  const [skipped, setSkipped] = useState(0);
  const [isPlain, setIsPlain] = useState(false);
  const [view, setView] = useState(WHOLE);
  const [isActive, setIsActive] = useState(false);
  const [showsKeys, setShowsKeys] = useState(false);
  const [showsAbove, setShowsAbove] = useState(false);
  const frame = useRef(null);
  const [renamedTeach, setRenamedTeach] = useState(false);
  const card = useRef(null);
  const items = data ? data.items.filter((item) => !gone.has(item.label_id)) : [];
  const position = Math.min(skipped, Math.max(0, items.length - 1));
  const item = items[position];
  const ahead = items.slice(position, position + PREFETCHED).map((entry) => ({ id: entry.label_id, field: settings.label_field, sample_id: entry.sample_id }));
  const pictures = usePictures(call, ahead, true);
  const nearest = useNearest(call, items.slice(position, position + PREFETCHED));
  const closer = useCloser(call, ahead[0], isPlain, isSharp(view));
  // Until a sharp one is there, the one that is there is shown larger.
  const plain = useCloser(call, isPlain ? ahead[0] : undefined, true, false);
  const picture = item ? closer || (isPlain && plain) || pictures[item.label_id] : undefined;
  useEffect(() => setView(WHOLE), [item && item.label_id]);
  const classes = data && item ? data.classes.filter((name) => name !== item.label) : [];
  const num_open = data ? Math.max(0, data.num_open - data.items.filter((entry) => gone.has(entry.label_id)).length) : 0;
  useEffect(() => { if (data) setGone((before) => new Set([...before].filter((id) => data.items.some((entry) => entry.label_id === id)))); }, [data]);

  const decide = (kind, label) => {
    if (!item) return;
    setRelabels(false);
    setGone((before) => new Set([...before, item.label_id]));
    call("decide", { kind, item: { label_id: item.label_id, sample_id: item.sample_id }, label, ...(kind === "relabel" ? { as_references: renamedTeach } : {}) }).then((done) => {
      if (!done) setGone((before) => new Set([...before].filter((id) => id !== item.label_id)));
    });
    if (card.current) card.current.focus({ preventScroll: true });
  };
  const zoom = (factor) => {
    const area = frame.current.getBoundingClientRect();
    setView((before) => zoomed(before, factor, { x: area.width / 2, y: area.height / 2 }, area));
  };
  const back = () => { setRelabels(false); setShowsKeys(false); };
  const keys = {
    o: () => setIsPlain((before) => !before), "?": () => setShowsKeys((before) => !before), b: () => setShowsAbove((before) => !before),
    g: () => call("show", { what: "queue" }), "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: () => setView(WHOLE),
    a: () => decide("accept"), r: () => decide("reject"), l: () => setRelabels(true), f: () => decide("fix"),
    s: () => setSkipped(position + 1 < items.length ? position + 1 : 0), u: () => call("undo"), escape: back,
  };
  const onKeyDown = (event) => {
    const key = event.key.toLowerCase();
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "TEXTAREA"].includes(event.target.tagName)) return;
    // A button that has the focus is pressed by its own key.
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
    ref: card, tabIndex: 0, onKeyDown, role: "group", "aria-label": "Object to review", onFocus: () => setIsActive(true), onBlur: () => setIsActive(false),
    sx: { outline: "none", borderRadius: 1, border: "1px solid", borderColor: "divider", p: 1, "&:focus": { borderColor: "primary.main" } },
  },
  box({ display: "flex", flexWrap: "wrap", columnGap: 1.5, rowGap: 1, mb: 1 },
    box({ flex: "1 1 240px", minWidth: 0 },
      h(Closer, { src: picture, alt: `${item.label}, score ${item.score.toFixed(2)}`, view, onView: setView, isActive, frame },
        pictures[item.label_id] === null ? box({ p: 2, color: "#ddd", position: "absolute", inset: 0 }, "This image cannot be read. Skip it, or reject the object.") : null)),
    h(Nearest, { found: nearest[item.label_id], call })),
  row({ mb: 1 }, text(item.label, { fontWeight: 600 }), text(`score ${item.score.toFixed(2)}`), text(item.why, { color: "text.secondary", ml: "auto" })),
  item.pieces > 1 && settings.as_references ? text(`Its mask has ${item.pieces} pieces: accepted, it becomes no reference. Fix it to make it one.`, { color: "warning.main", mb: 1 }) : null,
  relabels
    ? row({}, text("It is:"), classes.map((name, number) => button(number < 9 ? `${name} (${number + 1})` : name, () => decide("relabel", name), { key: name })),
      h(Field, { label: "Another (Enter)", value: "", onlyOnEnter: true, sx: { width: 140 }, onKeep: async (name) => { if (name.trim()) decide("relabel", name.trim()); return null; } }),
      check("It becomes a reference", renamedTeach, setRenamedTeach, "What the model took for something else is a reference only where you say so"),
      button("Back", () => setRelabels(false)))
    : row({},
      button("Accept (A)", keys.a, { primary: isNext, tip: `Copies it to the field ${settings.accepted_field}` }),
      button("Reject (R)", keys.r, { tip: "Keeps it as an example of what this class is not" }),
      button("Relabel (L)", keys.l, { tip: "Accepts it as another class" }),
      button("Fix (F)", keys.f, { tip: "Accepts it and opens the image, to correct it with the App's annotation tools" }),
      button("Skip (S)", keys.s), button("Undo (U)", keys.u, { disabled: !decided, tip: "Takes the last decision back; what it moved or changed does not come back" }),
      button("Outline (O)", keys.o, { tip: isPlain ? "Shows the outline again" : "Hides the outline, to see the edge", "aria-pressed": !isPlain }),
      button("Keys (?)", keys["?"], { "aria-expanded": showsKeys })),
  showsKeys ? h("div", { role: "note", "aria-label": "Keys", style: { marginTop: 8 } }, row({ rowGap: 0.5, columnGap: 1.5 }, KEYS.map(([key, does]) => box({ key, display: "flex", gap: 0.5, alignItems: "baseline" },
    h("kbd", { style: { fontSize: 12, padding: "0 5px", border: "1px solid #8888", borderRadius: 3, whiteSpace: "nowrap" } }, key), help(does))))) : null)
    : data ? row({}, text(data.num_open ? "Loading…" : decided ? "Everything is decided." : "Nothing to review yet: segment first."), decided ? button("Undo", keys.u) : null) : null,
  numSelected && selection.refusal ? box({ mt: 1 }, text(selection.refusal, { color: "text.secondary", overflowWrap: "anywhere" })) : null,
  numSelected && !selection.refusal
    ? row({ mt: 1 }, text(`${plural(numSelected, "object")} selected:`),
      button("Accept them", () => call("decide_selected", { kind: "accept" })), button("Reject them", () => call("decide_selected", { kind: "reject" })),
      h(Choice, { label: "They are", value: "", choices: (data ? data.classes : []).map((name) => [name, name]), sx: { width: 110 }, onChoose: (label) => call("decide_selected", { kind: "relabel", label }) }))
    : null,
  row({ mt: 1 },
    button("Accept all above …", keys.b, { disabled: !num_open, tip: "Those of a class, or all, from a score on: one decision (B)", "aria-expanded": showsAbove }),
    button("Show in grid", () => call("show", { what: "queue" }), { disabled: !num_open, tip: "The next hundred as patches: select many, and accept or reject them at once" }),
    overview.selection.view ? button("Show all images", () => call("show", { what: "all" })) : null,
    h(Choice, {
      label: "Order", value: settings.order, choices: [["teaching", "least sure first"], ["score", "best score first"]], sx: { width: 150 },
      onChoose: (order) => call("choose", { changes: { order }, sections: ["review"] }),
    })),
  showsAbove && data && num_open ? h(AcceptAbove, { call, label: item && item.label, classes: data.classes, num_open: data.num_open, field: settings.label_field, onClose: () => setShowsAbove(false) }) : null,
  row({ mt: 1.5, alignItems: "flex-start" },
    h(Field, {
      label: "Accepted objects", value: settings.accepted_field, about: "The field they go to", sx: { flex: 1, minWidth: 130 },
      onKeep: (accepted_field) => call("choose", { changes: { accepted_field }, sections: ["suggested", "review", "results"] }),
    }),
    check("They become references", settings.as_references, (as_references) => call("choose", { changes: { as_references } }), "Otherwise they are kept as labels alone. Masks of several pieces, and what you rename, become none")),
  references && references.pending && data && (data.num_open || decided)
    ? row({ mt: 1 }, button("Update", () => go("update"), { primary: isUpdateNext, disabled: isRunning, tip: "Learns from what was decided, and segments the same images again as the last run did" }), text(`Not learnt yet: ${references.pending}`, { color: "text.secondary" }))
    : null);
}
