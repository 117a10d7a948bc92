/* What the colours of heatmaps mean that are switched on in the App. */
import { activeFields, colorScheme, h, useRecoilValue } from "./app.js";
import { box, button, help, row, text } from "./pieces.js";

/** A line for each field of heatmaps that is shown in colours, whoever switched it on. */
export function Legends({ call }) {
  const active = useRecoilValue(activeFields({ modal: false }));
  const scheme = useRecoilValue(colorScheme);
  if (scheme.colorBy !== "value") return null;
  const shown = (scheme.colorscales || []).filter((scale) => active.includes(scale.path) && scale.list && scale.list.length);
  return shown.map((scale) => {
    const colours = scale.list.map(({ value, color }) => `${color} ${Math.round(100 * value)}%`);
    return row({ key: scale.path, mt: 1 },
      text(scale.path, { fontWeight: 600, overflowWrap: "anywhere" }),
      row({ flexWrap: "nowrap", gap: 0.75 },
        help("0, unlike"),
        h("div", { role: "img", "aria-label": `Colours of ${scale.path}, from 0 to 1`, style: { width: 110, height: 12, borderRadius: 3, background: `linear-gradient(to right, ${colours.join(", ")})` } }),
        help("1, the same")),
      box({ ml: "auto" }, button("Switch off", () => call("hide", { field: scale.path }), { "aria-label": `Switch ${scale.path} off`, sx: { py: 0, fontSize: 12 } })));
  });
}
