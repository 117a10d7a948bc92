/* The panel: which section is next, what runs, and what a job's button asks for. */
import { h, mui, useCallback, useEffect, useState } from "./app.js";
import { useCall, useSections, useSelection, useWatch } from "./calls.js";
import { Index } from "./indexing.js";
import { Inspect } from "./inspect.js";
import { SECTIONS, TITLES } from "./names.js";
import { Jobs, box, button, check, row, text } from "./pieces.js";
import { References } from "./references.js";
import { Results } from "./results.js";
import { Review, numDecided } from "./review.js";
import { Segment } from "./segment.js";
import { Similar } from "./similar.js";
import { Suggested } from "./suggested.js";
import { useTicking } from "./times.js";
import { Trouble, Troubles, isAside, useTroubles } from "./troubles.js";

/** The section whose button is to be pressed next, and the only one that is filled; "update" is the second of the review. */
function nextOf({ references, index, segment, review }, selection) {
  if (!references || !index || !segment || !review) return null;
  if (!references.num_references || selection.num_references || selection.num_negatives) return "references";
  const numHeld = index.lent ? index.lent.num_indexed : index.num_indexed;
  if (numHeld < index.num_images && !segment.run) return "index";
  if (!segment.run || segment.run.preview) return "segment";
  if (review.num_open) return "review";
  return references.pending && numDecided(review) ? "update" : "results";
}

const PANEL = "panel"; // errors of what belongs to no section

/** The App takes Enter for itself, unless it is kept from it: here it presses the button that has the focus. */
const keepEnter = (event) => { if (event.key === "Enter" && event.target.closest("button, [role=button], a")) event.stopPropagation(); };

export function RefSegPanel({ data = {}, schema }) {
  const ask = useCall(schema);
  const [troubles, callOf, dismiss] = useTroubles(ask, data.overview && data.overview.dataset);
  const call = callOf(PANEL);
  useTicking();
  const selection = useSelection(data.overview && data.overview.selection);
  const overview = data.overview && { ...data.overview, selection };
  const jobs = (overview && overview.jobs) || [];
  const follow = useWatch(call, jobs);
  const [sections, isReading] = useSections(callOf, data);
  const [opened] = useState(Date.now() / 1000);
  const [readAt, setReadAt] = useState(0);
  const [onlyView, setOnlyView] = useState(false);
  const [delegate, setDelegate] = useState(true);
  const [isInModal, setIsInModal] = useState(false);
  const [isInspecting, setIsInspecting] = useState(false);
  const place = useCallback((node) => { if (node) setIsInModal(Boolean(node.closest("[data-cy=modal]"))); }, []);
  const name = overview && overview.dataset;
  const isUsable = Boolean(overview) && !overview.problem;
  useEffect(() => {
    // One after the other, so that what is quick shows first.
    if (isUsable) SECTIONS.reduce((before, section) => before.then(() => callOf(section)("load", { sections: [section] })), Promise.resolve());
  }, [name, isUsable]);
  const ofPanel = [
    data.trouble && data.trouble.at > readAt && { ...data.trouble, key: "event", again: () => call("load", { anew: true }), onDismiss: () => setReadAt(data.trouble.at) },
    troubles[PANEL] && { ...troubles[PANEL], key: "call", onDismiss: () => dismiss(PANEL) },
  ].filter(Boolean).map((trouble) => h(Trouble, trouble));
  if (!overview) return box({ p: 3 }, ofPanel.length ? ofPanel : row({}, h(mui.CircularProgress, { size: 20 }), text("Loading…")));
  if (overview.problem) {
    const { way_out } = overview;
    return box({ p: 2 }, ofPanel, h(mui.Alert, { severity: "info" }, overview.problem,
      box({ mt: 1 }, way_out === "frames"
        ? button("Open its frames", () => call("open_frames"), { primary: true, tip: "Writes each frame as an image beside its video where that has not been done, and opens a view of them" })
        : button("Look again", () => call("load", { anew: true }), { primary: true }))));
  }
  const goOf = (section) => async function go(job) {
    const call = callOf(section), params = { job, only_view: onlyView && Boolean(overview.selection.view), delegate };
    const answer = await call("start", params, () => go(job));
    if (answer) follow(answer.id);
  };
  const next = nextOf(sections, selection);
  const shared = (section) => ({ overview, call: callOf(section), go: goOf(section), jobs, data: sections[section], isNext: next === section });
  const failures = overview.failures || {};
  const told = (section) => {
    const call = callOf(section), failed = failures[section], pressed = troubles[section];
    const again = failed && (failed.job ? () => goOf(section)(failed.job) : () => call("prompt", { operator: failed.operator }));
    return [
      failed && { key: "job", text: failed.text, at: failed.at, what: failed.label, again, isNew: failed.at > opened, onDismiss: () => call("dismiss", { section }) },
      pressed && { ...pressed, key: "press", isNew: !isAside(pressed.method), onDismiss: () => dismiss(section) },
    ].filter(Boolean);
  };
  const hasSuggested = sections.suggested && sections.suggested.is_possible;
  const others = jobs.filter((job) => ["find_similar", "sample_references"].includes(job.operator));
  // Beside an open image the App's arrows to the next one lie over the panel's edges.
  const frame = { ref: place, onKeyDown: keepEnter, sx: { p: 1.5, px: isInModal ? 7 : 1.5, height: "100%", overflowY: "auto", overflowX: "hidden", boxSizing: "border-box" } };
  if (isInspecting) {
    return h(mui.Box, frame, ofPanel,
      h(Inspect, { ...shared("inspection"), references: sections.references, onBack: () => setIsInspecting(false) }),
      // Its job fails in the section in which it was asked for.
      [...told("inspection"), ...told("references")].map((trouble) => h(Trouble, trouble)));
  }
  return h(mui.Box, frame,
    row({ justifyContent: "flex-end", mb: 1 },
      overview.can_delegate ? check("Long work in the delegated service", delegate, setDelegate, "Queue it for `fiftyone delegated launch`, instead of running it in this server") : null,
      isReading ? row({ mr: "auto" }, h(mui.CircularProgress, { size: 14 }), text("Reading the labels of this dataset…", { color: "text.secondary" })) : null,
      h(mui.Tooltip, { title: "Read everything again, for changes made elsewhere", describeChild: true },
        h(mui.IconButton, { "aria-label": "Refresh", size: "small", onClick: () => call("load", { anew: true }), sx: { fontSize: 18, width: 30, height: 30 } }, "⟳"))),
    ofPanel,
    h(Troubles.Provider, { value: Object.fromEntries(Object.entries(TITLES).map(([section, title]) => [title, told(section)])) },
      overview.similar ? h(Similar, { ...shared("similar"), references: sections.references, review: sections.review }) : null,
      h(References, { ...shared("references"), onInspect: () => setIsInspecting(true) }),
      h(Index, shared("index")),
      h(Segment, { ...shared("segment"), references: sections.references, start: { onlyView, setOnlyView } }),
      hasSuggested ? h(Suggested, { ...shared("suggested"), review: sections.review }) : null,
      h(Review, { ...shared("review"), isNext: ["review", "update"].includes(next), isUpdateNext: next === "update", references: sections.references }),
      h(Results, { ...shared("results"), review: sections.review })),
    h(Jobs, { jobs: others, call }),
    [...told("others"), ...(hasSuggested ? [] : told("suggested"))].map((trouble) => h(Trouble, trouble)));
}
