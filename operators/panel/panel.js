/*
 * How the panel "Reference segmentation" looks. What it shows and what its buttons do is decided in Python (panel.py): each
 * section draws one object of `props.data`, and each press calls one method of the panel. Plain JavaScript on the libraries that
 * the App itself provides, so there is nothing to build and dark and light follow the App's theme.
 */
(() => {
  "use strict";
  const { createElement: h, useCallback, useEffect, useRef, useState } = window.React;
  const mui = window.__mui__;
  const { usePanelEvent } = window.__foo__;
  const { usePanelId } = window.__fosp__;
  const { selectedLabelTypes } = window.__fos__;
  const { useRecoilValue } = window.recoil;
  const { registerComponent, PluginComponentType } = window.__fop__;

  const SECTIONS = ["references", "index", "segment", "suggested", "review", "results"];
  const POLL_MILLISECONDS = 1000;
  const READING_MILLISECONDS = 500;
  const PATIENCE_MILLISECONDS = 5000;
  const POLLS_UNTIL_LOST = 15; // a job neither running nor ended for so long was killed
  const PICTURES_A_REQUEST = 48;
  const PREFETCHED = 4; // pictures of the queue that are loaded ahead

  const GREEN = "#2e9e5b", RED = "#d64545", AMBER = "#e0a030";

  const box = ({ key, ...sx }, ...children) => h(mui.Box, { key, sx }, ...children);
  const row = ({ key, ...sx }, ...children) => box({ key, display: "flex", flexWrap: "wrap", alignItems: "center", gap: 1, ...sx }, ...children);
  const text = (content, sx = {}, key = undefined) => h(mui.Typography, { key, variant: "body2", component: "div", sx }, content);
  const help = (content) => h(mui.Typography, { variant: "caption", component: "div", sx: { color: "text.secondary", lineHeight: 1.35 } }, content);
  const plural = (number, noun) => `${number.toLocaleString()} ${noun}${number === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;

  function button(label, onClick, options = {}) {
    const { primary, tip, sx, ...more } = options;
    const pressed = h(mui.Button, {
      size: "small", variant: primary ? "contained" : "outlined", color: primary ? "primary" : "inherit", onClick,
      sx: { textTransform: "none", whiteSpace: "nowrap", ...sx }, ...more,
    }, label);
    return tip && !more.disabled ? h(mui.Tooltip, { title: tip, key: label, describeChild: true }, pressed) : pressed;
  }

  // Calls ------------------------------------------------------------------------------------------------------------------

  /** A function that calls a method of the panel and resolves to what it returns; the same one for the panel's life. */
  function useCall(schema) {
    const panelId = usePanelId();
    const handle = usePanelEvent();
    const latest = useRef(null);
    const chosen = useRef(Promise.resolve());
    latest.current = { handle, panelId, view: schema.view };
    return useCallback((method, params = {}) => {
      const ask = () => new Promise((resolve) => {
        const { handle: send, panelId: id, view } = latest.current;
        send(id, { operator: view[method], params, callback: (answer) => resolve(answer ? answer.result : undefined) });
      });
      if (method === "pictures") return ask();
      // A button pressed while its field is still being left waits until what was typed there is kept, and a decision or its
      // undoing waits for the one before.
      const answer = chosen.current.then(ask);
      if (["choose", "decide", "decide_selected", "undo"].includes(method)) chosen.current = answer;
      // Sections that were asked for before a change must not come after it: it waits for them, but not for ever, should the
      // server be gone.
      const patience = () => new Promise((done) => setTimeout(done, PATIENCE_MILLISECONDS));
      if (["load", "watch"].includes(method)) chosen.current = Promise.race([answer, patience()]);
      return answer;
    }, []);
  }

  /** Pictures by label id, asked for once each; `wanted` holds {id, field, sample_id}. */
  function usePictures(call, wanted, large) {
    const [known, setKnown] = useState({});
    const asked = useRef(new Set());
    const wantedIds = useRef(new Set());
    wantedIds.current = new Set(wanted.map((item) => item.id));
    const missing = wanted.filter((item) => !asked.current.has(item.id)).slice(0, large ? 1 : PICTURES_A_REQUEST);
    useEffect(() => {
      if (!missing.length) return;
      missing.forEach((item) => asked.current.add(item.id));
      const plain = missing.map(({ id, field, sample_id }) => ({ id, field, sample_id }));
      call("pictures", { wanted: plain, large }).then((found) => {
        if (!found) plain.forEach((item) => asked.current.delete(item.id));
        const rest = Object.fromEntries(found ? plain.map((item) => [item.id, null]) : []);
        setKnown((before) => {
          // Large ones are let go once they are not wanted any more.
          const kept = large ? Object.entries(before).filter(([id]) => wantedIds.current.has(id)) : Object.entries(before);
          if (large) asked.current = new Set([...asked.current].filter((id) => wantedIds.current.has(id)));
          return { ...Object.fromEntries(kept), ...rest, ...(found || {}) };
        });
      });
    }, [missing.map((item) => item.id).join()]);
    return known;
  }

  /** Watches jobs until they end. Returns a function that takes the id of a job just started. */
  function useWatch(call, jobs) {
    const known = useRef(new Map());
    const [tick, setTick] = useState(0);
    for (const job of jobs) if (!known.current.has(job.id)) known.current.set(job.id, 0);
    useEffect(() => {
      if (!known.current.size) return undefined;
      const timer = setTimeout(async () => {
        const answer = await call("watch", { known: [...known.current.keys()] });
        if (answer) {
          const alive = new Set(answer.jobs.map((job) => job.id));
          for (const [id, misses] of [...known.current]) {
            if (answer.ended.includes(id)) known.current.delete(id);
            else if (alive.has(id)) known.current.set(id, 0);
            else if (misses < POLLS_UNTIL_LOST) known.current.set(id, misses + 1);
            else { known.current.delete(id); call("load", { anew: true }); }
          }
        }
        setTick((number) => number + 1);
      }, POLL_MILLISECONDS);
      return () => clearTimeout(timer);
    }, [tick, jobs.length]);
    return (id) => { known.current.set(id, 0); setTick((number) => number + 1); };
  }

  /** Sections that are known; those whose labels are still being read are asked for again until they are. */
  function useSections(call, data) {
    const waiting = SECTIONS.filter((name) => data[name] && data[name].is_reading);
    const [tick, setTick] = useState(0);
    useEffect(() => {
      if (!waiting.length) return undefined;
      const timer = setTimeout(async () => {
        // One that failed has been told, and would be told again and again.
        if (await call("load", { sections: waiting })) setTick((number) => number + 1);
      }, READING_MILLISECONDS);
      return () => clearTimeout(timer);
    }, [tick, waiting.join()]);
    return [Object.fromEntries(SECTIONS.filter((name) => data[name] && !waiting.includes(name)).map((name) => [name, data[name]])), waiting.length > 0];
  }

  /** What is selected. FiftyOne 1.22 does not tell Python which labels were selected with Alt, so they are counted here. */
  function useSelection(selection) {
    const types = Object.values(useRecoilValue(selectedLabelTypes));
    if (!types.length || !selection) return selection;
    const num_negatives = types.filter((type) => type === "alt").length;
    return { ...selection, what: "object", num_references: types.length - num_negatives, num_negatives };
  }

  // Pieces -----------------------------------------------------------------------------------------------------------------

  function Section({ number, title, state, isNext, hint, children }) {
    return h(mui.Paper, {
      component: "section", "aria-label": title, variant: "outlined",
      sx: { p: 1.5, mb: 1.5, borderColor: isNext ? "primary.main" : "divider", backgroundImage: "none" },
    },
    row({ mb: hint ? 0.25 : 1 },
      box({
        width: 22, height: 22, borderRadius: "50%", fontSize: 12, fontWeight: 700, display: "grid", placeItems: "center",
        bgcolor: isNext ? "primary.main" : "action.selected", color: isNext ? "primary.contrastText" : "text.primary",
      }, number),
      h(mui.Typography, { variant: "subtitle1", component: "h2", sx: { fontWeight: 600 } }, title),
      text(state, { color: "text.secondary", ml: "auto", textAlign: "right" })),
    hint && box({ mb: 1 }, help(hint)),
    children);
  }

  function Jobs({ jobs, call }) {
    return jobs.map((job) => box({ key: job.id, my: 1 },
      row({ justifyContent: "space-between", flexWrap: "nowrap" },
        text([`${job.label}: ${job.text}`, job.left && !job.is_cancelled && `about ${job.left} left`, job.is_cancelled && "ending after this batch"].filter(Boolean).join(" · ")),
        button("Cancel", () => call("cancel", { id: job.id }), { disabled: job.is_cancelled })),
      h(mui.LinearProgress, {
        "aria-label": job.label, sx: { mt: 0.5, height: 6, borderRadius: 3 },
        ...(job.fraction === null ? {} : { variant: "determinate", value: 100 * job.fraction }),
      })));
  }

  /** A text or number field whose value is kept when it is left; a wrong one keeps its sentence below it. */
  function Field({ label, value, about, onKeep, onlyOnEnter, ...more }) {
    const [draft, setDraft] = useState(value);
    const [problem, setProblem] = useState(null);
    useEffect(() => { setDraft(value); setProblem(null); }, [value]);
    const keep = async () => {
      if (draft === value) return setProblem(null);
      const answer = await onKeep(draft);
      return setProblem(answer && answer.problem ? answer.problem : null);
    };
    return h(mui.TextField, {
      label, value: draft ?? "", size: "small", error: Boolean(problem), helperText: problem || about,
      onChange: (event) => setDraft(event.target.value), onBlur: onlyOnEnter ? undefined : keep,
      onKeyDown: (event) => { event.stopPropagation(); if (event.key === "Enter") keep(); }, ...more,
    });
  }

  function Choice({ label, value, choices, about, onChoose, sx }) {
    return h(mui.TextField, {
      select: true, label, value: value ?? "", size: "small", helperText: about, sx, SelectProps: { MenuProps: { sx: { zIndex: 99999 } } },
      onChange: (event) => onChoose(event.target.value),
    }, choices.map(([name, shown]) => h(mui.MenuItem, { key: name, value: name }, shown)));
  }

  const check = (label, checked, onChange, about) => h(mui.Tooltip, { title: about || "", describeChild: true },
    h(mui.FormControlLabel, {
      control: h(mui.Checkbox, { checked, size: "small", sx: { p: 0.5 }, onChange: (event) => onChange(event.target.checked) }),
      label: text(label), sx: { m: 0 },
    }));

  const LIST = { display: "flex", flexWrap: "wrap", gap: 0.75 };

  /** A crop; pressing it opens its image, the cross takes its tag off. */
  function Thumbnail({ item, picture, tone, tip, call }) {
    const place = { id: item.id, field: item.field, sample_id: item.sample_id };
    return h(mui.Tooltip, { title: tip, describeChild: true },
      box({ position: "relative", width: 40, height: 40, "& .remove": { opacity: 0 }, "&:hover .remove, & .remove:focus": { opacity: 1 } },
        h("img", {
          src: picture || undefined, alt: tip, width: 40, height: 40, onClick: () => call("open_image", place),
          style: { cursor: "pointer", objectFit: "cover", borderRadius: 4, border: `2px solid ${tone}`, boxSizing: "border-box", background: "#8884", fontSize: 0 },
        }),
        h("button", {
          className: "remove", "aria-label": `Remove this ${item.kind} of ${item.label}`, onClick: () => call("remove", place),
          style: {
            position: "absolute", top: -5, right: -5, width: 17, height: 17, padding: 0, borderRadius: 9, border: 0, cursor: "pointer",
            fontSize: 12, lineHeight: "15px", background: "#222", color: "#fff",
          },
        }, "×")));
  }

  // Sections ---------------------------------------------------------------------------------------------------------------

  /** Where thresholds come from, and the images known to be empty. */
  function Calibration({ data, call, go, jobs }) {
    const { calibration } = data;
    const isRunning = jobs.some((job) => ["calibrate", "learn", "update"].includes(job.operator));
    const parts = [
      calibration && calibration.text,
      data.num_empty && `${plural(data.num_empty, "image")} known to be empty`,
    ].filter(Boolean);
    const isWanted = calibration && !calibration.is_calibrated && !calibration.text && !data.pending;
    if (!parts.length && !isWanted) return null;
    return row({ mt: 1 },
      isWanted ? button("Calibrate", () => go("calibrate"), { disabled: isRunning, tip: "Find the minimum score that suits each class, from what else is to be seen in the images of its references" }) : null,
      parts.length ? help(parts.join(" · ")) : null);
  }

  function References({ data, overview, call, go, isNext, jobs }) {
    const { settings, selection } = overview;
    const numImages = selection.what === "image" ? selection.num_references + selection.num_negatives : 0;
    const areMarked = numImages > 0 && selection.num_marked === numImages;
    const types = useRecoilValue(selectedLabelTypes);
    const add = (only_negatives) => call("add", { only_negatives, alt_label_ids: Object.keys(types).filter((id) => types[id] === "alt") });
    const rows = data ? data.rows : [];
    const shown = rows.flatMap((entry) => [...entry.examples, ...entry.negatives]).concat(data ? data.other_negatives : []);
    const pictures = usePictures(call, shown, false);
    const about = (item) => {
      const what = item.kind === "negative" ? `Negative: not ${item.label}` : `Reference of ${item.label}`;
      const alike = item.similarity === null || item.similarity === undefined ? "" : `, ${item.similarity.toFixed(2)} like the others`;
      return item.problem ? `${what}: ${item.problem}` : what + alike;
    };
    const tone = (item) => (item.kind === "negative" ? RED : item.problem ? AMBER : GREEN);
    const strip = (items) => items.map((item) => h(Thumbnail, {
      key: item.id, item, picture: pictures[item.id], tone: tone(item), tip: about(item), call,
    }));
    const parts = [
      selection.num_references && `${plural(selection.num_references, selection.what)} as references`,
      selection.num_negatives && `${plural(selection.num_negatives, selection.what)} as negatives`,
    ].filter(Boolean);
    const state = !data ? "…" : data.num_references
      ? `${plural(data.num_references, "reference")} of ${plural(rows.length, "class")}${data.num_negatives ? `, ${plural(data.num_negatives, "negative")}` : ""}`
      : "none yet";
    return h(Section, {
      number: 1, title: "References", state, isNext,
      hint: "Objects that show what to look for. Select labels in an image, or images or patches in the grid; hold Alt to select what it is not.",
    },
    parts.length
      ? row({ mb: 1.75 }, button(`Add ${parts.join(", ")}`, () => add(false), { primary: true }),
        selection.num_references ? button(selection.num_negatives ? "Add all as negatives" : "As negatives", () => add(true), { tip: "They look like a class and are none of it" }) : null,
        numImages ? button(areMarked ? "Not empty after all" : numImages === 1 ? "This image is empty" : "These images are empty", () => call("mark_empty", { unmark: areMarked }), { tip: areMarked ? "Takes the mark off" : "They hold no object of any class: whatever is taken for one there is a mistake to learn from" }) : null,
        button("Clear selection", () => call("forget_selection")))
      : null,
    row({ mb: 1.5, alignItems: "flex-start" },
      h(Choice, {
        label: "Draw from", value: settings.field, choices: overview.fields.map((name) => [name, name]), sx: { minWidth: 130, flex: 1 },
        about: "Or let some be drawn from a labelled field", onChoose: (field) => call("choose", { changes: { field } }),
      }),
      h(Field, {
        label: "Shots", type: "number", value: settings.shots, about: "A class", sx: { width: 84 }, inputProps: { min: 1, step: 1 },
        onKeep: (value) => call("choose", { changes: { shots: Number(value) } }),
      }),
      button("Draw", () => call("draw"), {
        primary: isNext && !parts.length, disabled: !overview.fields.length, sx: { mt: 0.5 },
        tip: "At random, at most one of a class from an image; replaces this field's references",
      })),
    rows.map((entry) => box({ key: entry.name, mb: 1, display: "grid", gridTemplateColumns: "84px 1fr auto", columnGap: 1, alignItems: "center" },
      box({ minWidth: 0 },
        text(entry.name, { fontWeight: 600, overflow: "hidden", textOverflow: "ellipsis" }),
        help(plural(entry.shots, "shot"))),
      box(LIST, strip(entry.examples), strip(entry.negatives),
        entry.shots > entry.examples.length ? text(`and ${entry.shots - entry.examples.length} more`, { alignSelf: "center" }) : null),
      entry.quality === null ? box({}) : h(mui.Tooltip, { describeChild: true, title: "Quality: how alike its references are, each against the mean of the others" },
        box({ width: 56 },
          help(entry.quality.toFixed(2)),
          h(mui.LinearProgress, { variant: "determinate", value: 100 * Math.max(0, entry.quality), "aria-label": `Quality of ${entry.name}`, sx: { height: 6, borderRadius: 3 } }))),
      box({ gridColumn: "1 / -1" }, entry.problems.map((problem) => h(mui.Typography, { key: problem, variant: "caption", component: "div", sx: { color: AMBER } }, `Outlier: ${problem}`))))),
    data && data.num_other_negatives
      ? box({ mb: 1 }, text("Negatives of every class", { fontWeight: 600, mb: 0.5 }), box(LIST, strip(data.other_negatives)))
      : null,
    data && data.num_references
      ? row({ mt: 1 },
        button("Build prototypes", () => go("learn"), { disabled: (!data.pending && Boolean(data.prototypes)) || jobs.some((job) => job.operator === "learn"), tip: "Learn from the references, to see their quality; segmenting does so by itself" }),
        button("Inspect", () => call("prompt", { operator: "inspect_prototypes" }), { disabled: !data.prototypes, tip: "Each reference with its features and parts as colours" }),
        button("Heatmap", () => call("prompt", { operator: "show_heatmap" }), { disabled: !data.prototypes, tip: "How similar each spot of an image is to a class" }),
        data.pending ? text(`Not learnt yet: ${data.pending}`, { color: "text.secondary" }) : null)
      : null,
    data ? h(Calibration, { data, call, go, jobs }) : null,
    h(Jobs, { jobs: jobs.filter((job) => ["build_prototypes", "calibrate", "mine_negatives", "inspect_prototypes", "show_heatmap"].includes(job.operator)), call }));
  }

  function Index({ data, overview, call, go, isNext, jobs }) {
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

  const SLIDER = { size: "small", min: 0, max: 1, step: 0.01, valueLabelDisplay: "auto" };

  const ORIGINS = {
    calibrated: ["calibrated", "What suits its references best"],
    later: ["calibrated anew", "The next run finds what suits its references best"],
    default: ["default", "The model's own: what suits its references is not known"],
  };

  /** A class with the least score written, and where that comes from. */
  function Threshold({ entry, onKeep, onReset, onChoose }) {
    const [value, setValue] = useState(entry.threshold);
    useEffect(() => setValue(entry.threshold), [entry.threshold, entry.origin]);
    const [origin, about] = ORIGINS[entry.origin] || [];
    return box({ display: "grid", gridTemplateColumns: "minmax(60px, 130px) minmax(72px, 1fr) 38px 86px", alignItems: "center", columnGap: 1, minHeight: 30 },
      check(entry.name, entry.chosen, onChoose, "Look for this class"),
      h(mui.Slider, {
        ...SLIDER, value, disabled: !entry.chosen, "aria-label": `Minimum score of ${entry.name}`, onChange: (_, next) => setValue(next),
        onChangeCommitted: (_, next) => onKeep(next), onKeyDown: (event) => event.stopPropagation(),
      }),
      text(value.toFixed(2), { textAlign: "right" }),
      entry.origin === "own"
        ? button(entry.can_be_calibrated ? "use calibrated" : "use default", onReset, {
          variant: "text", "aria-label": `${entry.can_be_calibrated ? "Use calibrated" : "Use default"} for ${entry.name}`,
          sx: { p: 0, minWidth: 0, fontSize: 12, justifyContent: "flex-start" },
        })
        : value === entry.threshold ? h(mui.Tooltip, { title: about, describeChild: true }, box({}, help(origin))) : box({}));
  }

  /** How masks are compared with references; closed, because few need it. */
  function Matching({ matching, call }) {
    const [isOpen, setIsOpen] = useState(false);
    const { chosen, defaults, choices } = matching;
    const choose = (name, value) => call("choose", { changes: { matching: { [name]: value } }, sections: ["segment", "results"] });
    const changed = Object.keys(defaults).filter((name) => chosen[name] !== defaults[name]);
    const pick = (name, label) => h(Choice, {
      label, value: chosen[name], choices: choices[name].map(([value]) => [value, value]), sx: { flex: 1, minWidth: 150 },
      about: (choices[name].find(([value]) => value === chosen[name]) || ["", ""])[1], onChoose: (value) => choose(name, value),
    });
    return box({ my: 0.5 },
      row({}, button(`${isOpen ? "▾" : "▸"} Matching`, () => setIsOpen(!isOpen), { variant: "text", "aria-expanded": isOpen, sx: { px: 0.5 } }),
        changed.length ? help(`changed: ${changed.map((name) => name.replace("_", " ")).join(", ")}`) : null),
      h(mui.Collapse, { in: isOpen, unmountOnExit: true },
        box({ pl: 1, pb: 1 },
          row({ mb: 1.75 },
            check("Negatives", chosen.negatives, (value) => choose("negatives", value), "What resembles a negative more than its class scores lower"),
            check("Background", chosen.background, (value) => choose("background", value), "Drop masks that are more like what surrounds the references than like any class"),
            check("Scenes", chosen.scenes, (value) => choose("scenes", value), "A class also looks like the masks that show its references in their own images"),
            check("Whiten", chosen.whiten, (value) => choose("whiten", value), "Compare second looks by what sets them apart from everything else in the dataset"),
            changed.length ? button("Use defaults", () => call("choose", { changes: { matching: {} }, sections: ["segment", "results"] })) : null),
          row({ alignItems: "flex-start" }, pick("class_similarity", "Class similarity"), pick("overlaps", "Overlaps"), pick("second_look", "Second look")))));
  }

  function Segment({ data, references, overview, call, go, isNext, jobs, start }) {
    const { settings } = overview;
    const { onlyView, setOnlyView } = start;
    const own = jobs.filter((job) => ["learn", "update", "segment", "segment_with_references"].includes(job.operator));
    const run = data && data.run;
    const isReady = Boolean(references && references.num_references) && !own.length;
    const chosen = data ? data.classes.filter((entry) => entry.chosen).map((entry) => entry.name) : [];
    const choose = (name, wanted) => {
      const next = wanted ? [...chosen, name] : chosen.filter((other) => other !== name);
      call("choose", { changes: { classes: next.length === data.classes.length ? null : next }, sections: ["segment"] });
    };
    const keepThreshold = (changes) => call("choose", { changes, sections: ["segment", "results"] });
    const moved = data ? data.classes.filter((entry) => entry.origin === "own") : [];
    const state = !data ? "…" : !run ? "not run yet" : `${run.preview ? "preview: " : ""}${run.state === "interrupted" ? "interrupted: " : ""}${run.found} in ${run.images}, ${run.ago}${run.num_skipped ? `; ${plural(run.num_skipped, "image")} skipped` : ""}`;
    return h(Section, {
      number: 3, title: "Segment", state, isNext,
      hint: "Classes to look for, and the least score that is written of each: higher keeps quiet where there is nothing, lower finds more.",
    },
    data ? data.classes.map((entry) => h(Threshold, {
      key: entry.name, entry, onChoose: (wanted) => choose(entry.name, wanted),
      onKeep: (value) => keepThreshold({ threshold: [entry.name, value] }), onReset: () => keepThreshold({ threshold: [entry.name, null] }),
    })) : null,
    moved.length > 1 ? row({ justifyContent: "flex-end" }, button("Use calibrated for all", () => keepThreshold({ thresholds: [] }), { variant: "text", sx: { fontSize: 12 } })) : null,
    h(Matching, { matching: overview.matching, call }),
    h(Field, {
      label: "Predictions", value: settings.label_field, about: "The field to write; those of an earlier run are replaced", fullWidth: true, sx: { my: 1 },
      onKeep: (label_field) => call("choose", { changes: { label_field }, sections: SECTIONS }),
    }),
    row({},
      button("Preview the best 100", () => go("preview"), { disabled: !isReady, tip: "Writes and shows the hundred images with the best scores, of those that are indexed" }),
      button(run && !run.preview ? "Segment again" : "Segment", () => go("segment"), { primary: isNext, disabled: !isReady || !chosen.length, tip: "Learns from new references first; images that are not indexed are computed" }),
      overview.selection.view ? check(`Only the view (${overview.selection.view})`, onlyView, setOnlyView, "Otherwise the whole dataset") : null),
    data && data.classes.length && !chosen.length ? text("Tick at least one class.", { color: "error.main", mt: 0.5 }) : null,
    h(Jobs, { jobs: own, call }),
    h(Changes, { run, call }));
  }

  /** What the last run changed. */
  function Changes({ run, call }) {
    if (run && run.state === "failed" && run.error) return h(mui.Alert, { severity: "error", sx: { mt: 1 } }, `The last run failed: ${run.error}`);
    const ended = { cancelled: "cancelled", interrupted: "interrupted, because its process ended" }[run && run.state];
    if (!run || own(run) === 0) return ended ? box({ mt: 1 }, text(`The last run was ${ended}; what it had written is kept.`)) : null;
    const list = (pairs) => pairs.map(([name, number]) => `${name} ${number}`).join(", ");
    const total = (rows) => rows.reduce((sum, entry) => sum + entry[entry.length - 1], 0);
    const moved = run.relabelled.map(([before, after, number]) => `${before} → ${after} ${number}`).join(", ");
    return h(mui.Alert, {
      severity: "info", icon: false, sx: { mt: 1, py: 0 }, "aria-label": "What changed",
      action: button("Show them", () => call("show", { what: "changed" })),
    },
    text([
      run.gained.length ? `${plural(total(run.gained), "object")} gained (${list(run.gained)})` : "none gained",
      run.lost.length ? `${total(run.lost)} lost (${list(run.lost)})` : "none lost",
      run.relabelled.length ? `${total(run.relabelled)} relabelled (${moved})` : "none relabelled",
    ].join(" · ")));
  }
  const own = (run) => run.gained.length + run.lost.length + run.relabelled.length;

  const numDecided = (review) => (review ? review.num_accepted + review.num_rejected + review.num_relabelled + review.num_fixed : 0);

  /** Predictions that can be taken as references as they are; shown where there is something to suggest from. */
  function Suggested({ data, review, call, go, jobs }) {
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
    data.classes.map((entry) => box({ key: entry.name, mb: 1, display: "grid", gridTemplateColumns: "84px 1fr", columnGap: 1, alignItems: "center" },
      box({ minWidth: 0 },
        text(entry.name, { fontWeight: 600, overflow: "hidden", textOverflow: "ellipsis" }),
        help(plural(entry.items.length, "suggestion"))),
      box({ display: "flex", flexWrap: "wrap", columnGap: 2, rowGap: 0.75 }, entry.items.map((item) => box({ key: item.id, display: "flex", alignItems: "center", gap: 0.75 },
        h(mui.Tooltip, { title: item.reason, describeChild: true }, h("img", {
          src: pictures[item.id] || undefined, alt: `Suggested ${entry.name}, score ${item.score.toFixed(2)}`, width: 52, height: 52,
          onClick: () => call("open_image", { id: item.id, field: item.field, sample_id: item.sample_id }),
          style: { cursor: "pointer", objectFit: "cover", borderRadius: 4, border: "1px solid #8888", boxSizing: "border-box", background: "#8884", fontSize: 0 },
        })),
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

  function Review({ data, references, overview, call, go, isNext, jobs }) {
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

  const figure = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));

  function Results({ data, review, call, go, isNext, jobs }) {
    const own = jobs.filter((job) => job.operator === "evaluate");
    const measured = data && data.evaluation;
    const leftOut = measured ? [[measured.num_skipped, "image"], [measured.num_left_out, "label"]].filter(([number]) => number).map(([number, noun]) => plural(number, noun)) : [];
    const decided = numDecided(review);
    const state = !data ? "…" : measured ? `mask AP ${figure(measured.mask_ap ?? measured.box_ap)}` : decided ? `${Math.round(100 * review.acceptance_rate)} % accepted` : "not measured yet";
    const cells = (values, sx) => values.map((value, number) => h("td", { key: number, style: { padding: "2px 14px 2px 0", ...sx } }, value));
    return h(Section, {
      number: 5, title: "Results", state, isNext,
      hint: "Against ground truth where there is any; otherwise, how often predictions were right when you reviewed them.",
    },
    measured ? box({ mb: 1 },
      h("table", { "aria-label": "Average precision", style: { borderCollapse: "collapse", fontSize: 13 } },
        h("thead", null, h("tr", { style: { textAlign: "left", opacity: 0.7 } }, cells(["", "mask AP", "AP50", "box AP"]))),
        h("tbody", null,
          h("tr", { style: { fontWeight: 600 } }, cells(["all classes", figure(measured.mask_ap), figure(measured.mask_ap50), figure(measured.box_ap)])),
          measured.per_class.map(([name, masks, boxes]) => h("tr", { key: name }, cells([name, figure(masks), "", figure(boxes)]))))),
      help(`${plural(measured.num_images, "image")} with ${plural(measured.num_ground_truth, "object")} of “${measured.gt_field}”, ${measured.ago}${data.num_reference_images ? `; images that hold references (${data.num_reference_images} now) count too, and flatter the figures` : ""}`),
      measured.without_references.length ? text(`Without a reference, so never found: ${measured.without_references.join(", ")}. Add references of them to have them found.`, { color: "warning.main" }) : null,
      leftOut.length ? text(`Left out, as they cannot be used: ${leftOut.join(" and ")}. The evaluation's message names them.`, { color: "warning.main" }) : null,
      [...measured.notes, measured.hint].map((note) => note && text(note, { color: "warning.main", overflowWrap: "anywhere" }, note))) : null,
    decided ? text(`Reviewed: ${review.num_accepted} accepted, ${review.num_rejected} rejected, ${review.num_relabelled} relabelled, ${review.num_fixed} fixed: ${Math.round(100 * review.acceptance_rate)} % accepted, ${Math.round(review.corrections_per_hundred)} corrections in a hundred objects`, { mb: 1 }) : null,
    data && data.histogram ? h(Histogram, data) : null,
    row({ mt: 1 },
      button("Evaluate", () => go("evaluate"), { primary: isNext, disabled: !data || !data.histogram || !data.truth_fields.length || own.length > 0, tip: "By COCO's rules, with masks" }),
      button("Open the evaluation", () => call("evaluation"), { disabled: !measured || !measured.eval_key }),
      data && !data.truth_fields.length ? text("No other field holds objects to compare with.", { color: "text.secondary" }) : null),
    h(Jobs, { jobs: own, call }));
  }

  /**
   * Scores of the predictions, and the least score written of each class: a line down to its own row of names. All in one column
   * of a grid, so that lines reach their names however many rows those above them take.
   */
  function Histogram({ histogram, thresholds }) {
    const { counts, num } = histogram;
    const most = Math.max(1, ...counts);
    const width = 100 / counts.length;
    // Names lie towards the middle of their line, and in this order no line crosses the names of another.
    const isLeft = ({ value }) => value < 0.5;
    const lines = [...thresholds.filter(isLeft).reverse(), ...thresholds.filter((line) => !isLeft(line))];
    return box({ mb: 1, display: "grid", gridTemplateColumns: "minmax(0, 1fr)" },
      text(`Scores of ${plural(num, "prediction")}, and the least score written of each class`, { color: "text.secondary" }),
      h("svg", { role: "img", "aria-label": "Histogram of scores", viewBox: "0 0 100 30", preserveAspectRatio: "none", style: { width: "100%", height: 90, display: "block", gridRow: 2, gridColumn: 1 } },
        counts.map((count, number) => h("rect", { key: number, x: number * width + 0.3, width: width - 0.6, y: 29 - 28 * (count / most), height: 28 * (count / most), fill: GREEN }, h("title", null, `${(number / counts.length).toFixed(2)} to ${((number + 1) / counts.length).toFixed(2)}: ${count}`))),
        h("line", { x1: 0, x2: 100, y1: 29, y2: 29, stroke: "currentColor", strokeWidth: 0.2 })),
      row({ justifyContent: "space-between", gridRow: 3, gridColumn: 1 }, help("0"), help("1")),
      lines.map(({ value }, number) => h("div", { key: value, style: { gridColumn: 1, gridRow: `2 / ${number + 5}`, marginLeft: `${100 * value}%`, width: 0, borderLeft: `1px dashed ${RED}` } })),
      lines.map((line, number) => h(mui.Typography, {
        key: line.value, variant: "caption", component: "div",
        sx: {
          gridColumn: 1, gridRow: number + 4, lineHeight: 1.35, px: 0.5, bgcolor: "background.paper", overflowWrap: "anywhere", width: "fit-content",
          ...(isLeft(line) ? { ml: `calc(${100 * line.value}% + 1px)` } : { ml: "auto", mr: `${100 - 100 * line.value}%`, textAlign: "right" }),
        },
      }, `${line.value.toFixed(2)} ${line.names.join(", ") || "every class"}`)));
  }

  // The panel --------------------------------------------------------------------------------------------------------------

  /** The section whose button is to be pressed next. */
  function nextOf({ references, index, segment, review }) {
    if (!references || !index || !segment || !review) return null;
    if (!references.num_references) return "references";
    if (index.num_indexed < index.num_images && !segment.run) return "index";
    if (!segment.run || segment.run.preview) return "segment";
    return review.num_open ? "review" : "results";
  }

  function RefSegPanel({ data = {}, schema }) {
    const call = useCall(schema);
    const selection = useSelection(data.overview && data.overview.selection);
    const overview = data.overview && { ...data.overview, selection };
    const jobs = (overview && overview.jobs) || [];
    const follow = useWatch(call, jobs);
    const [sections, isReading] = useSections(call, data);
    const [onlyView, setOnlyView] = useState(false);
    const [delegate, setDelegate] = useState(true);
    const [isInModal, setIsInModal] = useState(false);
    const place = useCallback((node) => { if (node) setIsInModal(Boolean(node.closest("[data-cy=modal]"))); }, []);
    const name = overview && overview.dataset;
    const isUsable = Boolean(overview) && !overview.problem;
    useEffect(() => {
      // One after the other, so that what is quick shows first.
      if (isUsable) SECTIONS.reduce((before, section) => before.then(() => call("load", { sections: [section] })), Promise.resolve());
    }, [name, isUsable]);
    if (!overview) return row({ p: 3 }, h(mui.CircularProgress, { size: 20 }), text("Loading…"));
    if (overview.problem) return box({ p: 2 }, h(mui.Alert, { severity: "info" }, overview.problem));
    const go = async (job) => {
      const answer = await call("start", { job, only_view: onlyView && Boolean(overview.selection.view), delegate });
      if (answer) follow(answer.id);
    };
    const next = nextOf(sections);
    const shared = { overview, call, go, jobs };
    const others = jobs.filter((job) => ["find_similar", "sample_references"].includes(job.operator));
    // Beside an open image the App's arrows to the next one lie over the panel's edges.
    return h(mui.Box, { ref: place, sx: { p: 1.5, px: isInModal ? 7 : 1.5, height: "100%", overflowY: "auto", overflowX: "hidden", boxSizing: "border-box" } },
      row({ justifyContent: "flex-end", mb: 1 },
        overview.can_delegate ? check("Long work in the delegated service", delegate, setDelegate, "Queue it for `fiftyone delegated launch`, instead of running it in this server") : null,
        isReading ? row({ mr: "auto" }, h(mui.CircularProgress, { size: 14 }), text("Reading the labels of this dataset…", { color: "text.secondary" })) : null,
        button("Refresh", () => call("load", { anew: true }), { tip: "Read everything again, for changes made elsewhere" })),
      h(References, { ...shared, data: sections.references, isNext: next === "references" }),
      h(Index, { ...shared, data: sections.index, isNext: next === "index" }),
      h(Segment, { ...shared, data: sections.segment, references: sections.references, isNext: next === "segment", start: { onlyView, setOnlyView } }),
      sections.suggested && sections.suggested.is_possible ? h(Suggested, { ...shared, data: sections.suggested, review: sections.review }) : null,
      h(Review, { ...shared, data: sections.review, references: sections.references, isNext: next === "review" }),
      h(Results, { ...shared, data: sections.results, review: sections.review, isNext: next === "results" }),
      h(Jobs, { jobs: others, call }));
  }

  registerComponent({ name: "RefSegPanel", component: RefSegPanel, type: PluginComponentType.Component, activator: () => true });
})();
