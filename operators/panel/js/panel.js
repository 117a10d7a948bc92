/* The panel: which section is next, what runs, and what a job's button asks for. */
import { h, mui, useCallback, useEffect, useState } from "./app.js";
import { useCall, useSections, useSelection, useWatch } from "./calls.js";
import { Index } from "./indexing.js";
import { Inspect } from "./inspect.js";
import { SECTIONS } from "./names.js";
import { Jobs, box, button, check, row, text } from "./pieces.js";
import { References } from "./references.js";
import { Results } from "./results.js";
import { Review } from "./review.js";
import { Segment } from "./segment.js";
import { Similar } from "./similar.js";
import { Suggested } from "./suggested.js";

/** The section whose button is to be pressed next. */
function nextOf({ references, index, segment, review }) {
  if (!references || !index || !segment || !review) return null;
  if (!references.num_references) return "references";
  if (index.num_indexed < index.num_images && !segment.run) return "index";
  if (!segment.run || segment.run.preview) return "segment";
  return review.num_open ? "review" : "results";
}

export function RefSegPanel({ data = {}, schema }) {
  const call = useCall(schema);
  const selection = useSelection(data.overview && data.overview.selection);
  const overview = data.overview && { ...data.overview, selection };
  const jobs = (overview && overview.jobs) || [];
  const follow = useWatch(call, jobs);
  const [sections, isReading] = useSections(call, data);
  const [onlyView, setOnlyView] = useState(false);
  const [delegate, setDelegate] = useState(true);
  const [isInModal, setIsInModal] = useState(false);
  const [isInspecting, setIsInspecting] = useState(false);
  const place = useCallback((node) => { if (node) setIsInModal(Boolean(node.closest("[data-cy=modal]"))); }, []);
  const name = overview && overview.dataset;
  const isUsable = Boolean(overview) && !overview.problem;
  useEffect(() => {
    // One after the other, so that what is quick shows first.
    if (isUsable) SECTIONS.reduce((before, section) => before.then(() => call("load", { sections: [section] })), Promise.resolve());
  }, [name, isUsable]);
  if (!overview) return row({ p: 3 }, h(mui.CircularProgress, { size: 20 }), text("Loading…"));
  if (overview.problem) {
    const { way_out } = overview;
    return box({ p: 2 }, h(mui.Alert, { severity: "info" }, overview.problem,
      box({ mt: 1 }, way_out === "frames"
        ? button("Open its frames", () => call("open_frames"), { primary: true, tip: "Writes each frame as an image beside its video where that has not been done, and opens a view of them" })
        : button("Look again", () => call("load", { anew: true }), { primary: true }))));
  }
  const go = async (job) => {
    const answer = await call("start", { job, only_view: onlyView && Boolean(overview.selection.view), delegate });
    if (answer) follow(answer.id);
  };
  const next = nextOf(sections);
  const shared = { overview, call, go, jobs };
  const others = jobs.filter((job) => ["find_similar", "sample_references"].includes(job.operator));
  // Beside an open image the App's arrows to the next one lie over the panel's edges.
  const frame = { ref: place, sx: { p: 1.5, px: isInModal ? 7 : 1.5, height: "100%", overflowY: "auto", overflowX: "hidden", boxSizing: "border-box" } };
  if (isInspecting) {
    return h(mui.Box, frame, h(Inspect, { ...shared, data: sections.inspection, references: sections.references, onBack: () => setIsInspecting(false) }));
  }
  return h(mui.Box, frame,
    row({ justifyContent: "flex-end", mb: 1 },
      overview.can_delegate ? check("Long work in the delegated service", delegate, setDelegate, "Queue it for `fiftyone delegated launch`, instead of running it in this server") : null,
      isReading ? row({ mr: "auto" }, h(mui.CircularProgress, { size: 14 }), text("Reading the labels of this dataset…", { color: "text.secondary" })) : null,
      h(mui.Tooltip, { title: "Read everything again, for changes made elsewhere", describeChild: true },
        h(mui.IconButton, { "aria-label": "Refresh", size: "small", onClick: () => call("load", { anew: true }), sx: { fontSize: 18, width: 30, height: 30 } }, "⟳"))),
    overview.similar ? h(Similar, { ...shared, references: sections.references, review: sections.review }) : null,
    h(References, { ...shared, data: sections.references, isNext: next === "references", onInspect: () => setIsInspecting(true) }),
    h(Index, { ...shared, data: sections.index, isNext: next === "index" }),
    h(Segment, { ...shared, data: sections.segment, references: sections.references, isNext: next === "segment", start: { onlyView, setOnlyView } }),
    sections.suggested && sections.suggested.is_possible ? h(Suggested, { ...shared, data: sections.suggested, review: sections.review }) : null,
    h(Review, { ...shared, data: sections.review, references: sections.references, isNext: next === "review" }),
    h(Results, { ...shared, data: sections.results, review: sections.review, isNext: next === "results" }),
    h(Jobs, { jobs: others, call }));
}
