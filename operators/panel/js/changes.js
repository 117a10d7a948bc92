/* What the last run changed, and a way to see each object of it. */
import { colorScheme, h, mui, useSetRecoilState } from "./app.js";
import { box, button, plural, row, text } from "./pieces.js";

const own = (run) => run.gained.length + run.lost.length + run.relabelled.length;
const total = (rows) => rows.reduce((sum, entry) => sum + entry[entry.length - 1], 0);

const COLOURS = { gained: "#00e676", lost: "#ff1744", relabelled: "#ffc400" }; // bright, because images may be of any colour

/** Below the buttons of the section Segment. */
export function Changes({ run, call, isTold }) {
  const paint = useSetRecoilState(colorScheme);
  if (run && run.state === "failed" && run.error) return isTold ? null : box({ mt: 1 }, text(`The last run failed: ${run.error}`));
  const ended = { cancelled: "cancelled", interrupted: "interrupted, because its process ended" }[run && run.state];
  if (!run || own(run) === 0) return ended ? box({ mt: 1 }, text(`The last run was ${ended}; what it had written is kept.`)) : null;
  const list = (pairs) => pairs.map(([name, number]) => `${name} ${number}`).join(", ");
  const moved = run.relabelled.map(([before, after, number]) => `${before} → ${after} ${number}`).join(", ");
  const show = (kind) => call("show_changes", { kind }).then((shown) => {
    if (!shown) return;
    const valueColors = Object.entries(COLOURS).map(([value, color]) => ({ value, color }));
    const field = { path: shown.field, colorByAttribute: "change", fieldColor: null, maskTargetsColors: null, valueColors };
    paint((before) => ({ ...before, colorBy: "value", fields: [...(before.fields || []).filter((entry) => entry.path !== shown.field), field] }));
  });
  const dot = (colour) => h("span", { style: { width: 10, height: 10, borderRadius: "50%", background: colour, marginRight: 6, flex: "none" } });
  const kinds = Object.entries(COLOURS).filter(([kind]) => run[kind].length);
  return h(mui.Alert, { severity: "info", icon: false, sx: { mt: 1, py: 0, "& .MuiAlert-message": { width: "100%" } }, "aria-label": "What changed" },
    text([
      run.gained.length ? `${plural(total(run.gained), "object")} gained (${list(run.gained)})` : "none gained",
      run.lost.length ? `${total(run.lost)} lost (${list(run.lost)})` : "none lost",
      run.relabelled.length ? `${total(run.relabelled)} relabelled (${moved})` : "none relabelled",
    ].join(" · ")),
    row({ mt: 0.75 },
      button("Show them", () => show(null), { tip: "The images with these objects, each in the colour of its change; a lost one as the box where it was" }),
      kinds.map(([kind, colour]) => button(h("span", { style: { display: "flex", alignItems: "center" } }, dot(colour), `Only ${kind}`), () => show(kind), { key: kind, "aria-label": `Only ${kind}` }))));
}
