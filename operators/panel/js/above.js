/* "Accept all above …": a histogram of what is still open, a score on it, and one decision. */
import { h, mui, useEffect, useState } from "./app.js";
import { Choice, GREEN, box, button, help, plural, row } from "./pieces.js";

const ALL = "all"; // classes begin with an equals sign, whatever they are called
const BINS = 25; // bars; the score moves by hundredths

/** Opens below the buttons of the review; `label` is the class shown, `num_open` changes when something was decided. */
export function AcceptAbove({ call, label, classes, num_open, field, onClose }) {
  const [whose, setWhose] = useState(ALL);
  const wanted = whose === ALL ? null : whose.slice(1);
  const [counts, setCounts] = useState(null);
  const [most, setMost] = useState(0);
  const [least, setLeast] = useState(80);
  const [isAccepting, setIsAccepting] = useState(false);
  const [said, setSaid] = useState("");
  useEffect(() => {
    let isWanted = true;
    call("scores", { label: wanted }).then((found) => {
      if (found && isWanted) { setCounts(found.counts); setMost(found.most); }
    });
    return () => { isWanted = false; };
  }, [whose, num_open, field]);
  const above = counts ? counts.slice(least).reduce((sum, number) => sum + number, 0) : 0;
  const number = Math.min(above, most);
  const bars = counts ? Array.from({ length: BINS }, (_, bar) => counts.slice(bar * 4, bar === BINS - 1 ? 101 : bar * 4 + 4).reduce((sum, one) => sum + one, 0)) : [];
  const highest = Math.max(1, ...bars);
  const accept = () => {
    setIsAccepting(true);
    call("accept_above", { label: wanted, least }).then((done) => {
      setIsAccepting(false);
      setSaid(done ? `Accepted ${plural(done.num, "object")} as one decision: Undo takes all of them back.` : "");
    });
  };
  const names = [[ALL, "every class"], ...classes.map((name) => [`=${name}`, name === label ? `${name} (shown)` : name])];
  return h("div", {
    role: "group", "aria-label": "Accept all above a score", style: { marginTop: 8 },
    onKeyDown: (event) => { if (event.key === "Escape") { event.stopPropagation(); onClose(); } },
  },
  row({ alignItems: "flex-end" },
    h(Choice, { label: "Of", value: whose, choices: names, sx: { width: 150 }, onChoose: setWhose }),
    box({ flex: 1, minWidth: 180 },
      h("svg", { role: "img", "aria-label": "Histogram of open scores", viewBox: "0 0 100 24", preserveAspectRatio: "none", style: { width: "100%", height: 48, display: "block" } },
        bars.map((count, bar) => h("rect", {
          key: bar, x: bar * 4 + 0.3, width: 3.4, y: 24 - 23 * (count / highest), height: 23 * (count / highest), fill: bar * 4 + 3 >= least ? GREEN : "#8888",
        }, h("title", null, `${(bar / BINS).toFixed(2)} to ${((bar + 1) / BINS).toFixed(2)}: ${count}`)))),
      h(mui.Slider, {
        value: least, min: 0, max: 100, step: 1, size: "small", "aria-label": "Least score", valueLabelDisplay: "auto", valueLabelFormat: (value) => (value / 100).toFixed(2),
        sx: { py: 0.5, display: "block" }, onChange: (_, value) => { setLeast(value); setSaid(""); },
      }))),
  row({ mt: 0.5 },
    button(`Accept ${plural(number, "object")} of ${(least / 100).toFixed(2)} or more`, accept, { disabled: !number || isAccepting, tip: "One decision, which Undo takes back" }),
    button("Close", onClose),
    above > number ? help(`These are the best of ${above.toLocaleString()}; press again for more.`) : null),
  h("div", { role: "status" }, isAccepting ? help("Accepting…") : said ? help(said) : null));
}
