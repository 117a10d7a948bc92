/* Objects that "Find similar" found, while they are open in the grid: those selected become references or negatives. */
import { h, mui, useEffect, useState } from "./app.js";
import { Section, button, plural, row, text } from "./pieces.js";
import { numDecided } from "./review.js";

export function Similar({ overview, references, review, call }) {
  const { selection, similar } = overview;
  const [name, setName] = useState(similar.label || "");
  const [isAdding, setIsAdding] = useState(false);
  useEffect(() => setName(similar.label || ""), [similar.field, similar.label]);
  const [numReferences, numNegatives] = selection.what === "object" ? [selection.num_references, selection.num_negatives] : [0, 0];
  const number = numReferences + numNegatives;
  const parts = [numReferences && plural(numReferences, "reference"), numNegatives && plural(numNegatives, "negative")].filter(Boolean);
  const known = references ? references.rows.map((entry) => entry.name) : [];
  const isReady = number > 0 && name.trim() && !isAdding;
  const add = (is_negative) => {
    setIsAdding(true);
    call("add_similar", { label: name.trim(), is_negative }).then(() => setIsAdding(false));
  };
  const range = similar.score_range ? `, similarity ${similar.score_range[1].toFixed(2)} to ${similar.score_range[0].toFixed(2)}` : "";
  return h(Section, {
    number: "+", title: "Similar objects", isNext: number > 0,
    state: similar.num_found === null ? "in the grid" : `${similar.num_found.toLocaleString()} in the grid${range}`,
    hint: "Best first, each with its similarity. Select those in the grid that belong to a class, or that look like it and do not.",
  },
  row({ alignItems: "flex-start" },
    h(mui.Autocomplete, {
      freeSolo: true, size: "small", options: known, inputValue: name, onInputChange: (_, value) => setName(value), sx: { flex: 1, minWidth: 140 },
      slotProps: { popper: { sx: { zIndex: 99999 } } },
      renderInput: (params) => h(mui.TextField, { ...params, label: "Class", onKeyDown: (event) => event.stopPropagation() }),
    }),
    button(`Add ${parts.join(", ") || "references"}`, () => add(false), { primary: number > 0, disabled: !isReady, sx: { mt: 0.5 }, tip: `Copies them to the field ${overview.settings.accepted_field}; those selected with Alt become negatives` }),
    button("As negatives", () => add(true), { disabled: !isReady, sx: { mt: 0.5 }, "aria-label": "Add as negatives", tip: "They look like the class and are none of it" })),
  row({ mt: 1 },
    text(number ? `${number.toLocaleString()} selected` : "None is selected yet.", { color: "text.secondary" }),
    number ? button("Find similar", () => call("prompt", { operator: "find_similar" }), { tip: "What is most like these, in the place of what was found" }) : null,
    number ? button("Clear selection", () => call("forget_selection")) : null,
    button("Undo", () => call("undo"), { disabled: !numDecided(review), tip: "Takes the last decision back" }),
    button("Show all images", () => call("show", { what: "all" }), { sx: { ml: "auto" } })));
}
