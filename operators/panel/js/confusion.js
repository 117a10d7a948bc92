/* What objects are and what they were taken for, of the classes with most mistakes; each number opens its objects. */
import { h, mui } from "./app.js";
import { GREEN, RED, box, help, plural, text } from "./pieces.js";

const MISSED = "not found", NOTHING = "nothing there";

export function Confusion({ table, call }) {
  if (!table || !table.names.length) return null;
  const { names, cells, most } = table;
  const highest = Math.max(1, ...cells.flat());
  const told = (truth, predicted) => (truth === null ? `${predicted} where there is nothing` : predicted === null ? `${truth} not found` : truth === predicted ? `${truth} found` : `${truth} taken for ${predicted}`);
  const tone = (number, isRight) => (number ? `${isRight ? GREEN : RED}${Math.round(40 + 90 * (number / highest)).toString(16).padStart(2, "0")}` : "transparent");
  const side = { padding: "2px 8px 2px 0", fontWeight: 400, overflow: "hidden", textOverflow: "ellipsis", whiteSpace: "nowrap" };
  const heads = [...names, null];
  return box({ mt: 1.5 },
    text(most ? `Most confused: ${plural(most.number, "object")} of ${most.truth} taken for ${most.predicted}` : "No class was taken for another"),
    // However narrow the panel is, all columns are there: long names are cut, and told in full where the mouse rests.
    box({ mt: 0.5 }, h("table", { "aria-label": "Confusion", style: { borderCollapse: "separate", borderSpacing: 2, fontSize: 13, tableLayout: "fixed", width: "100%", maxWidth: 96 + 72 * heads.length } },
      h("thead", null, h("tr", null,
        h("th", { scope: "col", title: "Each row is what objects are, each column what they were taken for", style: { ...side, opacity: 0.8, textAlign: "left", width: 84 } }, "is ↓ as →"),
        heads.map((name) => h("th", { key: name || MISSED, scope: "col", title: name || MISSED, style: { ...side, padding: "2px 0", textAlign: "center" } }, name || MISSED)))),
      h("tbody", null, heads.map((truth, line) => h("tr", { key: truth || NOTHING },
        h("th", { scope: "row", title: truth || NOTHING, style: { ...side, textAlign: "left" } }, truth || NOTHING),
        heads.map((predicted, column) => {
          const number = cells[line][column];
          if (truth === null && predicted === null) return h("td", { key: MISSED });
          return h("td", { key: predicted || MISSED, style: { padding: 0 } }, number
            ? h(mui.ButtonBase, {
              onClick: () => call("show_cell", { truth, predicted }), "aria-label": `Show ${number} ${told(truth, predicted)}`, title: `${number} ${told(truth, predicted)}: show them`,
              sx: { width: "100%", minWidth: 0, height: 24, borderRadius: 0.5, fontSize: 13, color: "text.primary", bgcolor: tone(number, truth === predicted), "&:hover, &:focus-visible": { outline: "1px solid currentColor" } },
            }, number.toLocaleString())
            : box({ height: 24, display: "grid", placeItems: "center", color: "text.secondary" }, "·"));
        })))))),
    table.num_hidden ? help(`The ${names.length} classes with most mistakes; ${plural(table.num_hidden, "other class")}${table.rest ? `, with ${plural(table.rest, "more mistake")} between classes` : ""} ${table.num_hidden === 1 ? "is" : "are"} not shown.`) : null);
}
