/* Pieces that several sections are made of. */
import { h, mui, useEffect, useState } from "./app.js";
import { TroublesOf } from "./troubles.js";

export const GREEN = "#2e9e5b", RED = "#d64545", AMBER = "#e0a030";

const ON_ORANGE = { color: "#141414", "&:hover": { color: "#141414" } }; // the App's white is too pale on its orange

export const box = ({ key, ...sx }, ...children) => h(mui.Box, { key, sx }, ...children);
export const row = ({ key, ...sx }, ...children) => box({ key, display: "flex", flexWrap: "wrap", alignItems: "center", gap: 1, ...sx }, ...children);
export const text = (content, sx = {}, key = undefined) => h(mui.Typography, { key, variant: "body2", component: "div", sx }, content);
export const help = (content) => h(mui.Typography, { variant: "caption", component: "div", sx: { color: "text.secondary", lineHeight: 1.35, fontSize: 12 } }, content);
export const plural = (number, noun) => `${number.toLocaleString()} ${noun}${number === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;

export function button(label, onClick, options = {}) {
  const { primary, tip, sx, ...more } = options;
  const pressed = h(mui.Button, {
    size: "small", variant: primary ? "contained" : "outlined", color: primary ? "primary" : "inherit", onClick,
    sx: { textTransform: "none", whiteSpace: "nowrap", fontSize: 12, ...(primary ? ON_ORANGE : {}), ...sx }, ...more,
  }, label);
  return tip && !more.disabled ? h(mui.Tooltip, { title: tip, key: label, describeChild: true }, pressed) : pressed;
}

const FOLDED = "refseg.folded."; // what a browser keeps of it

/** A part of the panel: its title says its state, and pressing the title folds it; what is next is never folded. */
export function Section({ number, title, state, isNext, hint, children }) {
  const [isFolded, setIsFolded] = useState(() => window.localStorage.getItem(FOLDED + title) === "yes");
  const fold = () => {
    window.localStorage.setItem(FOLDED + title, isFolded ? "no" : "yes");
    setIsFolded(!isFolded);
  };
  return h(mui.Paper, {
    component: "section", "aria-label": title, variant: "outlined",
    sx: { p: 1.5, mb: 1.5, containerType: "inline-size", borderColor: isNext ? "primary.main" : "divider", backgroundImage: "none" },
  },
  row({ mb: isFolded ? 0 : hint ? 0.25 : 1, "& .refseg-fold:focus-visible": { outline: "2px solid", borderRadius: 0.5 } },
    box({
      width: 22, height: 22, borderRadius: "50%", fontSize: 12, fontWeight: 700, display: "grid", placeItems: "center",
      bgcolor: isNext ? "primary.main" : "action.selected", color: isNext ? ON_ORANGE.color : "text.primary",
    }, number),
    h(mui.Typography, { variant: "subtitle1", component: "h2", sx: { fontWeight: 600 } },
      h("button", { onClick: fold, "aria-expanded": !isFolded, style: { all: "unset", cursor: "pointer" }, className: "refseg-fold" }, title)),
    text(state, { color: "text.secondary", ml: "auto", textAlign: "right" })),
  h(mui.Collapse, { in: !isFolded, unmountOnExit: true }, hint && box({ mb: 1 }, help(hint)), children),
  h(TroublesOf, { title }));
}

/** A line for each job; without a bar where the section has one that says the same. */
export function Jobs({ jobs, call, hasBar = true }) {
  return jobs.map((job) => box({ key: job.id, my: 1 },
    row({ justifyContent: "space-between", flexWrap: "nowrap" },
      text([`${job.label}: ${job.text}`, job.found > 0 && `${plural(job.found, "object")} so far`, job.left && !job.is_cancelled && `about ${job.left} left`, job.is_cancelled && "ending after this batch"].filter(Boolean).join(" · ")),
      button("Cancel", () => call("cancel", { id: job.id }), { disabled: job.is_cancelled })),
    hasBar ? h(mui.LinearProgress, {
      "aria-label": job.label, sx: { mt: 0.5, height: 6, borderRadius: 3 },
      ...(job.fraction === null ? {} : { variant: "determinate", value: 100 * job.fraction }),
    }) : null));
}

/** Helper text and labels no smaller than any other text, where a label has moved up too. */
const ABOUT = { FormHelperTextProps: { sx: { fontSize: 12, lineHeight: 1.35 } } };
const LABELLED = { "& .MuiInputLabel-shrink": { transform: "translate(14px, -9px) scale(0.86)" }, "& legend": { fontSize: "0.86em" } };

/** A text or number field whose value is kept when it is left; a wrong one keeps its sentence below it. */
export function Field({ label, value, about, onKeep, onlyOnEnter, sx, ...more }) {
  const [draft, setDraft] = useState(value);
  const [problem, setProblem] = useState(null);
  useEffect(() => { setDraft(value); setProblem(null); }, [value]);
  const keep = async () => {
    if (draft === value) return setProblem(null);
    const answer = await onKeep(draft);
    return setProblem(answer && answer.problem ? answer.problem : null);
  };
  return h(mui.TextField, {
    ...ABOUT, sx: { ...LABELLED, ...sx }, label, value: draft ?? "", size: "small", error: Boolean(problem), helperText: problem || about,
    onChange: (event) => setDraft(event.target.value), onBlur: onlyOnEnter ? undefined : keep,
    onKeyDown: (event) => { event.stopPropagation(); if (event.key === "Enter") keep(); }, ...more,
  });
}

export function Choice({ label, value, choices, about, onChoose, sx }) {
  return h(mui.TextField, {
    ...ABOUT, sx: { ...LABELLED, ...sx }, select: true, label, value: value ?? "", size: "small", helperText: about, SelectProps: { MenuProps: { sx: { zIndex: 99999 } } },
    onChange: (event) => onChoose(event.target.value),
  }, choices.map(([name, shown]) => h(mui.MenuItem, { key: name, value: name }, shown)));
}

export const check = (label, checked, onChange, about) => h(mui.Tooltip, { title: about || "", describeChild: true },
  h(mui.FormControlLabel, {
    control: h(mui.Checkbox, { checked, size: "small", sx: { p: 0.5 }, onChange: (event) => onChange(event.target.checked) }),
    label: text(label), sx: { m: 0 },
  }));

/** A grid with other columns where the panel is very narrow. */
export const columns = (gridTemplateColumns, narrow = "minmax(0, 1fr)") => ({ display: "grid", gridTemplateColumns, "@container (max-width: 280px)": { gridTemplateColumns: narrow } });

export const LIST = { display: "flex", flexWrap: "wrap", gap: 0.75 };

/** A picture of an object, or while it is loaded, and where there is none, an empty place for it: never a broken picture. */
export function Crop({ picture, alt, side, edge = "1px solid #8888", onClick }) {
  const style = { width: side, height: side, borderRadius: 4, border: edge, boxSizing: "border-box", background: "#8884", cursor: onClick ? "pointer" : "default" };
  const onKeyDown = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
    onClick();
  };
  const pressed = onClick ? { role: "button", tabIndex: 0, onClick, onKeyDown } : {};
  if (picture) return h("img", { src: picture, alt, width: side, height: side, ...pressed, style: { ...style, objectFit: "cover" } });
  return h("div", { role: "img", "aria-label": alt, ...pressed, style: { ...style, display: "grid", placeItems: "center", fontSize: 12 } }, picture === null ? "?" : "");
}

/** A crop; pressing it opens its image, the cross takes its tag off. */
export function Thumbnail({ item, picture, tone, tip, call }) {
  const place = { id: item.id, field: item.field, sample_id: item.sample_id };
  return h(mui.Tooltip, { title: tip, describeChild: true },
    box({ position: "relative", width: 40, height: 40, "& .remove": { opacity: 0 }, "&:hover .remove, & .remove:focus": { opacity: 1 } },
      h(Crop, { picture, alt: tip, side: 40, edge: `2px solid ${tone}`, onClick: () => call("open_image", place) }),
      h("button", {
        className: "remove", "aria-label": `Remove this ${item.kind} of ${item.label}`, onClick: () => call("remove", place),
        style: {
          position: "absolute", top: -5, right: -5, width: 17, height: 17, padding: 0, borderRadius: 9, border: 0, cursor: "pointer",
          fontSize: 12, lineHeight: "15px", background: "#222", color: "#fff",
        },
      }, "×")));
}
