/* Pieces that several sections are made of. */
import { h, mui, useEffect, useState } from "./app.js";
import { TroublesOf } from "./troubles.js";

export const GREEN = "#2e9e5b", RED = "#d64545", AMBER = "#e0a030";

export const box = ({ key, ...sx }, ...children) => h(mui.Box, { key, sx }, ...children);
export const row = ({ key, ...sx }, ...children) => box({ key, display: "flex", flexWrap: "wrap", alignItems: "center", gap: 1, ...sx }, ...children);
export const text = (content, sx = {}, key = undefined) => h(mui.Typography, { key, variant: "body2", component: "div", sx }, content);
export const help = (content) => h(mui.Typography, { variant: "caption", component: "div", sx: { color: "text.secondary", lineHeight: 1.35 } }, content);
export const plural = (number, noun) => `${number.toLocaleString()} ${noun}${number === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;

export function button(label, onClick, options = {}) {
  const { primary, tip, sx, ...more } = options;
  const pressed = h(mui.Button, {
    size: "small", variant: primary ? "contained" : "outlined", color: primary ? "primary" : "inherit", onClick,
    sx: { textTransform: "none", whiteSpace: "nowrap", ...sx }, ...more,
  }, label);
  return tip && !more.disabled ? h(mui.Tooltip, { title: tip, key: label, describeChild: true }, pressed) : pressed;
}

export function Section({ number, title, state, isNext, hint, children }) {
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
  children,
  h(TroublesOf, { title }));
}

/** A line for each job; without a bar where the section has one that says the same. */
export function Jobs({ jobs, call, hasBar = true }) {
  return jobs.map((job) => box({ key: job.id, my: 1 },
    row({ justifyContent: "space-between", flexWrap: "nowrap" },
      text([`${job.label}: ${job.text}`, job.left && !job.is_cancelled && `about ${job.left} left`, job.is_cancelled && "ending after this batch"].filter(Boolean).join(" · ")),
      button("Cancel", () => call("cancel", { id: job.id }), { disabled: job.is_cancelled })),
    hasBar ? h(mui.LinearProgress, {
      "aria-label": job.label, sx: { mt: 0.5, height: 6, borderRadius: 3 },
      ...(job.fraction === null ? {} : { variant: "determinate", value: 100 * job.fraction }),
    }) : null));
}

/** A text or number field whose value is kept when it is left; a wrong one keeps its sentence below it. */
export function Field({ label, value, about, onKeep, onlyOnEnter, ...more }) {
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

export function Choice({ label, value, choices, about, onChoose, sx }) {
  return h(mui.TextField, {
    select: true, label, value: value ?? "", size: "small", helperText: about, sx, SelectProps: { MenuProps: { sx: { zIndex: 99999 } } },
    onChange: (event) => onChoose(event.target.value),
  }, choices.map(([name, shown]) => h(mui.MenuItem, { key: name, value: name }, shown)));
}

export const check = (label, checked, onChange, about) => h(mui.Tooltip, { title: about || "", describeChild: true },
  h(mui.FormControlLabel, {
    control: h(mui.Checkbox, { checked, size: "small", sx: { p: 0.5 }, onChange: (event) => onChange(event.target.checked) }),
    label: text(label), sx: { m: 0 },
  }));

export const LIST = { display: "flex", flexWrap: "wrap", gap: 0.75 };

/** A crop; pressing it opens its image, the cross takes its tag off. */
export function Thumbnail({ item, picture, tone, tip, call }) {
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
