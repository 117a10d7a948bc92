/* "Inspect": what the references are worth, in the place of the sections until "Back" is pressed. */
import { h, mui, useEffect, useRef, useState } from "./app.js";
import { usePictures } from "./calls.js";
import { AMBER, Crop, Jobs, box, button, help, plural, row, text } from "./pieces.js";
import { ago } from "./times.js";

const PALE = [236, 242, 250], STRONG = [20, 84, 158];
const MOST_NUMBERED = 12; // cells of more classes have no room for a number
const PREFETCHED = 3;

const figure = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));

/** What is lighter or darker enough to be read on a colour. */
function inkOn(rgb) {
  const linear = rgb.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
  const light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return 1.05 / (light + 0.05) > (light + 0.05) / 0.05 ? "#fff" : "#000";
}

function Heading({ children, about }) {
  return box({ mt: 2, mb: 0.75 },
    h(mui.Typography, { variant: "subtitle1", component: "h3", sx: { fontWeight: 600 } }, children),
    about ? help(about) : null);
}

function Bar({ value, label, tip, color }) {
  const isKnown = value !== null && value !== undefined;
  return h(mui.Tooltip, { title: tip, describeChild: true },
    box({ display: "grid", gridTemplateColumns: "1fr 34px", alignItems: "center", columnGap: 1, minWidth: 0 },
      h(mui.Box, {
        role: "meter", tabIndex: 0, "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuenow": isKnown ? value : undefined, "aria-valuetext": isKnown ? figure(value) : "not known",
        sx: { height: 10, borderRadius: 0.5, overflow: "hidden", ...(isKnown ? { bgcolor: "action.selected" } : { border: "1px dashed", borderColor: "action.disabled" }) },
      }, isKnown ? box({ height: "100%", width: `${100 * Math.min(1, Math.max(0, value))}%`, bgcolor: color }) : null),
      text(figure(value), { textAlign: "right" })));
}

/** Of each class how well its references are found when left out, and how alike they are. */
function Classes({ classes }) {
  return h(mui.Box, { role: "group", "aria-label": "Quality of classes", sx: { display: "grid", gridTemplateColumns: "minmax(64px, 110px) 1fr 1fr", columnGap: 1.5, rowGap: 0.5, alignItems: "center" } },
    box({}), help("found (F1)"), help("alike"),
    classes.flatMap((entry) => [
      h(mui.Tooltip, { key: `${entry.name} name`, title: `${entry.name}: ${plural(entry.num_references, "reference")}`, describeChild: true },
        box({ minWidth: 0 }, text(entry.name, { fontWeight: 600, overflow: "hidden", textOverflow: "ellipsis", whiteSpace: "nowrap" }))),
      h(Bar, {
        key: `${entry.name} F1`, value: entry.f1, label: `F1 of ${entry.name}`, color: entry.f1 !== null && entry.f1 < 0.5 ? AMBER : "primary.main",
        tip: entry.f1 === null ? "Not known: no reference of it can be left out and looked for"
          : `F1 ${figure(entry.f1)}: its references found, and others taken for it, each as if its image had never been shown${entry.threshold === null ? "" : `; from a score of ${figure(entry.threshold)}`}`,
      }),
      h(Bar, {
        key: `${entry.name} alike`, value: entry.similarity, label: `Likeness of ${entry.name}`, color: "text.secondary",
        tip: entry.similarity === null ? "It has one reference: there is none to compare it with" : `Its references are ${figure(entry.similarity)} like the others of the class, on the average`,
      }),
    ]));
}

/** How alike the classes are to the encoder: what is dark beside the diagonal is confused. */
function Matrix({ classes, between }) {
  const isNumbered = classes.length <= MOST_NUMBERED;
  const side = classes.length <= 8 ? 54 : isNumbered ? 38 : Math.max(9, Math.min(26, Math.floor(420 / classes.length)));
  const cell = (value, rowName, columnName) => {
    const share = Math.min(1, Math.max(0, value));
    const rgb = PALE.map((part, number) => Math.round(part + share * (STRONG[number] - part)));
    const about = rowName === columnName ? `${rowName}: itself` : `${rowName} and ${columnName}: ${value.toFixed(2)}`;
    return h(mui.Tooltip, { key: columnName, title: about, disableInteractive: true },
      h("td", {
        "aria-label": about,
        style: { width: side, minWidth: side, height: isNumbered ? 26 : side, padding: 0, textAlign: "center", fontSize: 12, background: `rgb(${rgb})`, color: inkOn(rgb), border: "1px solid transparent", backgroundClip: "padding-box" },
      }, isNumbered ? value.toFixed(2) : null));
  };
  const name = { overflow: "hidden", textOverflow: "ellipsis", whiteSpace: "nowrap", fontWeight: 400, fontSize: 12 };
  return box({ overflowX: "auto", maxWidth: "100%" },
    h("table", { "aria-label": "Similarity of classes", style: { borderCollapse: "collapse" } },
      isNumbered ? h("thead", null, h("tr", null, h("td", null), classes.map((entry) => h("th", { key: entry.name, scope: "col", title: entry.name, style: { ...name, maxWidth: side } }, entry.name)))) : null,
      h("tbody", null, classes.map((entry, number) => h("tr", { key: entry.name },
        h("th", { scope: "row", title: entry.name, style: { ...name, textAlign: "right", paddingRight: 8, maxWidth: 110, lineHeight: isNumbered ? "normal" : `${side}px`, fontSize: isNumbered || side >= 14 ? 12 : 0 } }, entry.name),
        between[number].map((value, column) => cell(value, entry.name, classes[column].name)))))));
}

/** References that lower how well their class is found, or that look like mistakes. */
function Hurting({ items, call, onDone, isWorking }) {
  const pictures = usePictures(call, items, false, 128);
  return h("div", { role: "list", "aria-label": "References that hurt" }, items.map((item) => h(mui.Box, { key: item.id, role: "listitem", sx: { display: "flex", alignItems: "center", gap: 1, mb: 0.75 } },
    box({ flex: "none", lineHeight: 0 }, h(Crop, { picture: pictures[item.id], alt: `Reference of ${item.label}`, side: 64, edge: `2px solid ${AMBER}`, onClick: () => call("open_image", { id: item.id, field: item.field, sample_id: item.sample_id }) })),
    box({ flex: 1, minWidth: 0 }, text(item.label, { fontWeight: 600 }), help(item.why)),
    button("Remove", () => onDone(call("drop_reference", { id: item.id, field: item.field, sample_id: item.sample_id })), { disabled: isWorking, "aria-label": `Remove this reference of ${item.label}`, tip: "Takes the tag off; the label stays" }))));
}

/** Pictures of suggestions by id, asked for once each. */
function useSuggestionPictures(call, ids) {
  const [known, setKnown] = useState({});
  const asked = useRef(new Set());
  const missing = ids.filter((id) => !asked.current.has(id));
  useEffect(() => {
    if (!missing.length) return;
    missing.forEach((id) => asked.current.add(id));
    call("suggestion_pictures", { ids: missing }).then((found) => {
      if (found) setKnown((before) => ({ ...before, ...found }));
      else missing.forEach((id) => asked.current.delete(id));
    });
  }, [missing.join()]);
  return known;
}

/** What would help as the next reference, one card after the other. */
function Suggestions({ items, isPrimary, call, onDone, isWorking }) {
  const [position, setPosition] = useState(0);
  const at = items.length ? position % items.length : 0;
  const item = items[at];
  const pictures = useSuggestionPictures(call, [...items, ...items].slice(at, at + Math.min(PREFETCHED, items.length)).map((entry) => entry.id));
  if (!item) return null;
  const place = { id: item.id };
  return h("div", { role: "group", "aria-label": "Suggestion", style: { border: "1px solid #8886", borderRadius: 4, padding: 8 } },
    box({ position: "relative", width: "100%", aspectRatio: "8 / 5", bgcolor: "#222", borderRadius: 1, overflow: "hidden", mb: 1 },
      pictures[item.id]
        ? h("img", { src: pictures[item.id], alt: `Suggested ${item.label}, score ${item.score.toFixed(2)}`, title: "Open its image", onClick: () => call("open_image", { sample_id: item.sample_id }), style: { width: "100%", height: "100%", objectFit: "contain", cursor: "pointer" } })
        : pictures[item.id] === null ? box({ p: 2, color: "#ddd" }, "This image cannot be read.") : null),
    row({ mb: 0.5 }, text(`${item.label}?`, { fontWeight: 600 }), text(`score ${item.score.toFixed(2)}`), text(`${at + 1} of ${items.length}`, { color: "text.secondary", ml: "auto" })),
    box({ mb: 1 }, help(item.reason)),
    row({},
      button("Accept as reference", () => onDone(call("take_suggestion", place)), { primary: isPrimary, disabled: isWorking, tip: `It is a ${item.label}: labels it, and makes it a reference` }),
      button("Not this", () => onDone(call("take_suggestion", { ...place, is_negative: true })), { disabled: isWorking, tip: `It is no ${item.label}: keeps it as a negative` }),
      button("Next", () => setPosition((at + 1) % items.length), { disabled: items.length < 2 })));
}

/** What became of the suggestions, where none is open. */
function suggested(data) {
  if (data.suggestions === null) return "Nothing was suggested: see the notes below.";
  if (!data.num_suggested) return "No object without a label would help.";
  return "All suggestions are decided.";
}

export function Inspect({ data, references, call, go, jobs, onBack }) {
  const [isWorking, setIsWorking] = useState(false);
  const heading = useRef(null);
  useEffect(() => { if (heading.current) heading.current.focus(); }, []);
  const own = jobs.filter((job) => job.operator === "inspect_prototypes");
  const learning = jobs.filter((job) => ["learn", "build_prototypes", "calibrate"].includes(job.operator));
  const isAsked = useRef(false);
  useEffect(() => {
    // Pressing "Inspect" is asking for it: where nothing is there yet, it begins.
    if (data && !data.is_there && !own.length && !isAsked.current) { isAsked.current = true; go("inspect"); }
  }, [data]);
  const onDone = (answer) => { setIsWorking(true); answer.then(() => setIsWorking(false)); };
  const save = (which) => call("inspection_file", { which }).then((file) => {
    if (!file) return;
    const link = document.createElement("a");
    link.href = file.content;
    link.download = file.name;
    link.click();
  });
  const isThere = data && data.is_there;
  const pending = references && references.pending;
  const isOld = isThere && !pending && !data.is_current;
  const done = isThere ? [
    data.num_references && `${plural(data.num_references, "reference")} added`,
    data.num_negatives && `${plural(data.num_negatives, "negative")} added`,
    data.num_removed && `${plural(data.num_removed, "reference")} removed`,
  ].filter(Boolean) : [];
  const again = !isThere || own.length ? null : button("Inspect again", () => go("inspect"), { primary: isOld, disabled: Boolean(pending) || learning.length > 0, tip: "With the prototypes as they are now" });
  return h("section", { "aria-label": "Inspect" },
    row({ mb: 1 },
      button("Back", onBack, { "aria-label": "Back to the panel" }),
      h(mui.Typography, { ref: heading, tabIndex: -1, variant: "h6", component: "h2", sx: { outline: "none" } }, "Inspect"),
      text(isThere ? `prototypes “${data.prototypes}”, ${ago(data.at)}` : "", { color: "text.secondary", ml: "auto" })),
    h(Jobs, { jobs: [...own, ...learning], call }),
    !data ? text("Loading…") : !isThere && !own.length ? row({}, text("Not inspected yet.", { color: "text.secondary" }), button("Inspect", () => go("inspect"), { primary: true })) : null,
    isThere ? box({},
      row({ minHeight: 34 },
        pending ? button("Build prototypes", () => go("learn"), { primary: true, disabled: learning.length > 0, tip: "Learn from the references as they are now; then inspect again" }) : null,
        again,
        data.can_undo ? button("Undo", () => onDone(call("undo_inspected")), { disabled: isWorking, tip: "Takes the last of these changes back" }) : null,
        text(pending ? `Not learnt yet: ${pending}` : isOld ? "The prototypes were built anew since." : "", { color: "text.secondary" })),
      done.length ? h("div", { role: "status" }, help(`Since this inspection: ${done.join(", ")}.`)) : null,
      h(Heading, { about: "Candidates without a label that would teach the prototypes most." }, "What would help next"),
      data.suggestions && data.suggestions.length
        ? h(Suggestions, { items: data.suggestions, isPrimary: !pending && !isOld, call, onDone, isWorking })
        : text(suggested(data), { color: "text.secondary" }),
      h(Heading, { about: "Found without them, or unlike the others of their class." }, "References that hurt"),
      data.references.length ? h(Hurting, { items: data.references, call, onDone, isWorking })
        : text(data.num_scored ? "No reference hurts." : "Too few references to tell.", { color: "text.secondary" }),
      h(Heading, { about: "Each reference left out and looked for; and how alike the references of a class are." }, "Quality of the classes"),
      h(Classes, { classes: data.classes }),
      h(Heading, { about: "To the encoder: 1 is the same, 0 and less is unlike. What is dark beside the diagonal is easily taken for each other." }, "How alike the classes are"),
      h(Matrix, { classes: data.classes, between: data.between }),
      data.num_classes > data.classes.length ? help(`The ${data.classes.length} of ${data.num_classes} classes that are most like another.`) : null,
      data.confused ? text(`Most confused: ${data.confused}.`, { mt: 1 }) : null,
      data.notes.map((note) => box({ key: note, mt: 0.5 }, help(`Note: ${note}.`))),
      row({ mt: 2 },
        data.files.includes("report") ? button("Save this report as a picture", () => save("report")) : null,
        data.files.includes("references") ? button("Save all references as a picture", () => save("references"), { tip: "Each with its features and parts, as the encoder sees it" }) : null,
        button("Other choices", () => call("prompt", { operator: "inspect_prototypes" }), { tip: "Other prototypes, fewer classes, or the report as fields of the dataset" }))) : null);
}
