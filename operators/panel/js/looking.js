/* The object under review: looked at more closely by the wheel, and with or without its outline. */
import { h, useEffect, useRef, useState } from "./app.js";
import { box } from "./pieces.js";

const MOST_ZOOM = 10;
const SHARP_FROM = 1.4; // times; from there on a larger picture is asked for
const STEP = 1.3;
export const WHOLE = { scale: 1, x: 0, y: 0 };

/** The next view of a frame of some width and height, about a point in it. */
export function zoomed(before, factor, at, size) {
  const scale = Math.min(MOST_ZOOM, Math.max(1, before.scale * factor));
  const shift = (axis, length) => Math.min(0, Math.max(length * (1 - scale), at[axis] - (at[axis] - before[axis]) * (scale / before.scale)));
  return { scale, x: shift("x", size.width), y: shift("y", size.height) };
}

/** Pictures that are asked for when they are first looked at: without an outline, or sharp. Null while there is none. */
export function useCloser(call, place, plain, sharp) {
  const [known, setKnown] = useState({});
  const asked = useRef(new Set());
  const key = place && (plain || sharp) ? `${place.id} ${plain} ${sharp}` : null;
  useEffect(() => {
    if (!key || asked.current.has(key)) return;
    asked.current.add(key);
    call("pictures", { wanted: [place], large: true, plain, sharp }).then((found) => {
      if (!found) asked.current.delete(key);
      // Only those of the last object are kept: a sharp one takes half a megabyte.
      else setKnown((before) => ({ ...Object.fromEntries(Object.entries(before).filter(([name]) => name.startsWith(place.id))), [key]: found[place.id] }));
    });
  }, [key]);
  useEffect(() => { asked.current = new Set(); }, [place && place.id]);
  return (key && known[key]) || null;
}

/**
 * A picture in a frame. The wheel looks closer while `isActive`, or with Ctrl held; else it scrolls the panel. Dragging moves it.
 * `view` is {scale, x, y}.
 */
export function Closer({ src, alt, view, onView, isActive, frame, children }) {
  const drag = useRef(null);
  const latest = useRef({});
  latest.current = { view, onView, isActive };
  useEffect(() => {
    // React's own wheel events cannot keep the panel from scrolling.
    const node = frame.current;
    const onWheel = (event) => {
      const { view: before, onView: change, isActive: listens } = latest.current;
      if (!listens && !event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const area = node.getBoundingClientRect();
      change(zoomed(before, event.deltaY < 0 ? STEP : 1 / STEP, { x: event.clientX - area.left, y: event.clientY - area.top }, area));
    };
    node.addEventListener("wheel", onWheel, { passive: false });
    return () => node.removeEventListener("wheel", onWheel);
  }, []);
  const onPointerDown = (event) => {
    if (event.button !== 0 || view.scale === 1) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    drag.current = { x: event.clientX - view.x, y: event.clientY - view.y };
  };
  const onPointerMove = (event) => {
    if (!drag.current) return;
    const area = frame.current.getBoundingClientRect();
    const within = (value, length) => Math.min(0, Math.max(length * (1 - view.scale), value));
    onView({ ...view, x: within(event.clientX - drag.current.x, area.width), y: within(event.clientY - drag.current.y, area.height) });
  };
  const end = () => { drag.current = null; };
  return h("div", {
    ref: frame, onPointerDown, onPointerMove, onPointerUp: end, onPointerCancel: end,
    style: { position: "relative", width: "100%", aspectRatio: "8 / 5", background: "#222", borderRadius: 4, overflow: "hidden", cursor: view.scale > 1 ? "grab" : "default", touchAction: "none" },
  },
  src ? h("img", {
    src, alt, draggable: false,
    style: { width: "100%", height: "100%", objectFit: "contain", transformOrigin: "0 0", transform: `translate(${view.x}px, ${view.y}px) scale(${view.scale})`, userSelect: "none" },
  }) : null,
  view.scale > 1 ? box({ position: "absolute", right: 6, bottom: 4, px: 0.75, borderRadius: 1, bgcolor: "rgba(0, 0, 0, 0.7)", color: "#fff", fontSize: 12, pointerEvents: "none" }, `${view.scale.toFixed(1)} ×`) : null,
  children);
}

export const isSharp = (view) => view.scale >= SHARP_FROM;
