/* "Show an object": an image inside the panel; clicks and boxes on it become a mask, and that a reference. */
import { h, mui, useEffect, useRef, useState } from "./app.js";
import { AMBER, GREEN, RED, box, button, help, row, text } from "./pieces.js";

const DRAGGED_PIXELS = 6; // less is a click
const MOST_ZOOM = 12;
const NOTHING = { points: [], beside: [], box: null };

const percent = (share) => `${100 * share}%`;
const place = ([x, y, width, height]) => ({ position: "absolute", left: percent(x), top: percent(y), width: percent(width), height: percent(height), pointerEvents: "none", boxSizing: "border-box" });

/** The picture, with what was shown on it so far; tells of clicks and boxes in shares of the image. */
function Canvas({ scene, prompt, mask, isWaiting, onPrompt, onKey }) {
  const frame = useRef(null), stage = useRef(null);
  const [zoom, setZoom] = useState({ scale: 1, x: 0, y: 0 });
  const [drag, setDrag] = useState(null);
  useEffect(() => setZoom({ scale: 1, x: 0, y: 0 }), [scene.sample_id]);
  useEffect(() => {
    // React's own wheel events cannot keep the panel from scrolling.
    const node = frame.current;
    const onWheel = (event) => {
      event.preventDefault();
      const area = node.getBoundingClientRect();
      const at = { x: event.clientX - area.left, y: event.clientY - area.top };
      setZoom((before) => {
        const scale = Math.min(MOST_ZOOM, Math.max(1, before.scale * (event.deltaY < 0 ? 1.25 : 0.8)));
        const shift = (axis, length) => Math.min(0, Math.max(length * (1 - scale), at[axis] - (at[axis] - before[axis]) * (scale / before.scale)));
        return { scale, x: shift("x", area.width), y: shift("y", area.height) };
      });
    };
    node.addEventListener("wheel", onWheel, { passive: false });
    return () => node.removeEventListener("wheel", onWheel);
  }, []);
  const share = (event) => {
    const area = stage.current.getBoundingClientRect();
    const within = (value) => Math.min(1, Math.max(0, value));
    return [within((event.clientX - area.left) / area.width), within((event.clientY - area.top) / area.height)];
  };
  const spanned = (from, to) => [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.abs(from[0] - to[0]), Math.abs(from[1] - to[1])];
  const onPointerDown = (event) => {
    if (event.button !== 0) return;
    frame.current.focus({ preventScroll: true });
    frame.current.setPointerCapture(event.pointerId);
    setDrag({ from: share(event), to: share(event), at: [event.clientX, event.clientY], isBox: false });
  };
  const onPointerMove = (event) => {
    if (!drag) return;
    const isBox = drag.isBox || Math.hypot(event.clientX - drag.at[0], event.clientY - drag.at[1]) > DRAGGED_PIXELS;
    setDrag({ ...drag, to: share(event), isBox });
  };
  const onPointerUp = (event) => {
    if (!drag) return;
    setDrag(null);
    const spot = share(event);
    if (drag.isBox) {
      const shown = spanned(drag.from, spot);
      if (shown[2] > 0 && shown[3] > 0) onPrompt({ ...NOTHING, box: shown });
    } else if (event.altKey) {
      if (prompt.points.length || prompt.box) onPrompt({ ...prompt, beside: [...prompt.beside, spot] });
    } else onPrompt({ ...prompt, points: [...prompt.points, spot] });
  };
  const dot = (colour) => (spot, number) => h("div", {
    key: `${colour}${number}`,
    style: {
      position: "absolute", left: percent(spot[0]), top: percent(spot[1]), width: 9, height: 9, borderRadius: 9, background: colour, border: "1.5px solid #fff",
      transform: `translate(-50%, -50%) scale(${1 / zoom.scale})`, pointerEvents: "none",
    },
  });
  const line = 2 / zoom.scale;
  const dragged = drag && drag.isBox ? spanned(drag.from, drag.to) : prompt.box;
  return h("div", {
    ref: frame, tabIndex: 0, role: "application", "aria-label": "Image to show an object in", onPointerDown, onPointerMove, onPointerUp,
    onKeyDown: onKey,
    style: { position: "relative", overflow: "hidden", cursor: isWaiting ? "progress" : "crosshair", touchAction: "none", borderRadius: 4, lineHeight: 0, background: "#222", userSelect: "none" },
  },
  h("div", { ref: stage, style: { position: "relative", transformOrigin: "0 0", transform: `translate(${zoom.x}px, ${zoom.y}px) scale(${zoom.scale})` } },
    h("img", { src: scene.picture, alt: scene.name, draggable: false, style: { width: "100%", display: "block" } }),
    scene.known.map((item) => h("div", { key: item.id, title: item.label, style: { ...place(item.box), border: `${line}px solid ${item.is_negative ? RED : GREEN}`, borderRadius: 3 } })),
    mask ? h("img", { src: mask.picture, alt: "Mask of the object", draggable: false, style: place(mask.box) }) : null,
    dragged ? h("div", { style: { ...place(dragged), border: `${line}px dashed ${AMBER}` } }) : null,
    prompt.points.map(dot(GREEN)), prompt.beside.map(dot(RED))));
}

/** The whole of it; `onClose` puts it away. */
export function ShowObject({ call, current, onClose }) {
  const [scene, setScene] = useState(null);
  const [prompt, setPrompt] = useState(NOTHING);
  const [masks, setMasks] = useState([]);
  const [choice, setChoice] = useState(0);
  const [isWaiting, setIsWaiting] = useState(false);
  const [name, setName] = useState("");
  const [said, setSaid] = useState("");
  const latest = useRef(0);
  const wantsKeep = useRef(false); // Enter was pressed before the answer was there
  const field = useRef(null);
  const begin = () => { latest.current += 1; wantsKeep.current = false; setPrompt(NOTHING); setMasks([]); setChoice(0); setIsWaiting(false); };
  const show = (params) => call("scene", params).then((found) => {
    if (!found) return;
    begin();
    setSaid("");
    setScene(found);
    call("prepare", { sample_id: found.sample_id });
  });
  useEffect(() => { show({ sample_id: current }); }, [current]);
  const ask = (next) => {
    const number = latest.current += 1;
    wantsKeep.current = false;
    setPrompt(next);
    setSaid("");
    setIsWaiting(true);
    call("point", { sample_id: scene.sample_id, ...next }).then((found) => {
      if (number !== latest.current) return; // another click came meanwhile
      setIsWaiting(false);
      setMasks(found ? found.masks : []);
      setChoice(0);
    });
  };
  const keep = (is_negative = false) => {
    if (isWaiting && prompt !== NOTHING) wantsKeep.current = true;
    if (!masks.length || isWaiting) return;
    if (!name.trim()) { if (field.current) field.current.focus(); return; }
    setIsWaiting(true);
    call("keep", { sample_id: scene.sample_id, ...prompt, choice, label: name, is_negative }).then((kept) => {
      setIsWaiting(false);
      if (!kept) return;
      begin();
      setScene((before) => ({ ...before, known: kept.known, classes: kept.classes }));
      setSaid(is_negative ? `Kept: it is not ${name.trim()}.` : `Kept as a reference of ${name.trim()}. Show another one, or segment.`);
    });
  };
  useEffect(() => { if (wantsKeep.current && masks.length) { wantsKeep.current = false; keep(); } }, [masks]);
  const another = () => { if (masks.length > 1) setChoice((choice + 1) % masks.length); };
  const onKey = (event) => {
    const act = { Enter: () => keep(), Escape: begin, Tab: masks.length > 1 ? another : null }[event.key];
    if (!act) return;
    act();
    event.preventDefault();
    event.stopPropagation();
  };
  const mask = masks[choice];
  const hint = !scene ? "" : isWaiting ? "Looking…"
    : !mask ? said || "Click on an object, or drag a box around it. Turn the wheel to look closer."
      : [
        mask.origin === "index" ? "One of the masks of the index." : "The model's answer.",
        mask.pieces > 1 ? `It has ${mask.pieces} pieces.` : "",
        "Click to add what is missing, Alt-click what does not belong to it.",
      ].filter(Boolean).join(" ");
  return box({ mb: 1.5, p: 1, border: "1px solid", borderColor: "divider", borderRadius: 1 },
    row({ mb: 1, flexWrap: "nowrap" },
      text(scene ? scene.name : "Opening an image…", { fontWeight: 600, overflow: "hidden", textOverflow: "ellipsis", whiteSpace: "nowrap", mr: "auto" }),
      current ? null : button("Previous", () => show({ sample_id: scene && scene.sample_id, step: -1 }), { disabled: !scene }),
      current ? null : button("Next", () => show({ sample_id: scene && scene.sample_id, step: 1 }), { disabled: !scene }),
      button("Close", onClose)),
    scene ? h(Canvas, { scene, prompt, mask, isWaiting, onPrompt: ask, onKey }) : null,
    isWaiting || !scene ? h(mui.LinearProgress, { "aria-label": "Looking for the object", sx: { mt: 0.5 } }) : box({ height: 4, mt: 0.5 }),
    h("div", { role: "status" }, help(hint)),
    row({ mt: 1, alignItems: "flex-start" },
      h(mui.Autocomplete, {
        freeSolo: true, size: "small", options: scene ? scene.classes : [], inputValue: name, onInputChange: (_, value) => setName(value), sx: { flex: 1, minWidth: 140 },
        slotProps: { popper: { sx: { zIndex: 99999 } } },
        renderInput: (params) => h(mui.TextField, {
          ...params, label: "It is", inputRef: field,
          onKeyDown: (event) => { event.stopPropagation(); if (event.key === "Enter" && !event.defaultPrevented) keep(); },
        }),
      }),
      button("Keep (Enter)", () => keep(), { primary: Boolean(mask && name.trim()), disabled: !mask || isWaiting, sx: { mt: 0.5 }, tip: "Labels it, and makes it a reference" }),
      masks.length > 1 ? button(`Another mask (Tab) ${choice + 1}/${masks.length}`, another, { sx: { mt: 0.5 } }) : null,
      mask ? button("Start again (Esc)", begin, { sx: { mt: 0.5 } }) : null,
      mask && name.trim() ? button(`It is not ${name.trim()}`, () => keep(true), { sx: { mt: 0.5 }, tip: "Keeps it as a negative: it looks like the class and is none of it" }) : null));
}
