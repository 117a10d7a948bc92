/* What went wrong: in the section whose button was pressed, or whose job failed, until it is dismissed or done again. */
import { createContext, h, mui, useContext, useEffect, useRef, useState } from "./app.js";
import { ago } from "./times.js";

const ASIDE = ["load", "look_closer", "pictures", "watch"];

/** Whether nobody pressed anything for this. */
export const isAside = (method) => ASIDE.includes(method);

/** What each section has to tell, by its title; see useTroubles. */
export const Troubles = createContext({});

/**
 * Calls by section: a section's own `call` notes what goes wrong with it, and forgets what went wrong before once something else
 * is pressed there. Returns the errors by section, a function that gives a section its call, and one that dismisses an error.
 */
export function useTroubles(ask, dataset) {
  const [troubles, setTroubles] = useState({});
  const calls = useRef({});
  useEffect(() => setTroubles({}), [dataset]);
  const dismiss = (section) => setTroubles(({ [section]: _, ...others }) => others);
  const callOf = (section) => {
    const call = async (method, params = {}, again = () => call(method, params)) => {
      if (!isAside(method)) dismiss(section);
      const answer = await ask(method, params);
      if (!answer || !answer.trouble) {
        setTroubles((before) => (before[section] && before[section].method === method ? without(before, section) : before));
        return answer;
      }
      const { text, at } = answer.trouble;
      setTroubles((before) => {
        const same = before[section] && before[section].method === method && before[section].text === text;
        // What is asked again and again fails again and again.
        return same && isAside(method) ? before : { ...before, [section]: { text, at, method, again } };
      });
      return undefined;
    };
    calls.current[section] = calls.current[section] || call;
    return calls.current[section];
  };
  return [troubles, callOf, dismiss];
}
const without = (all, name) => { const { [name]: _, ...others } = all; return others; };

/** The text, when it was, and what can be done about it. */
export function Trouble({ text, at, what, again, onDismiss, isNew }) {
  const node = useRef(null);
  useEffect(() => { if (isNew && node.current) node.current.scrollIntoView({ block: "nearest" }); }, [at]);
  const act = (label, onClick) => h(mui.Button, { size: "small", color: "inherit", onClick, sx: { textTransform: "none" } }, label);
  return h(mui.Alert, {
    ref: node, severity: "error", sx: { mt: 1, py: 0, "& .MuiAlert-message": { minWidth: 0, overflowWrap: "anywhere" }, "& .MuiAlert-action": { pt: 0.25 } },
    action: [again ? h("span", { key: "again" }, act("Again", again)) : null, h("span", { key: "dismiss" }, act("Dismiss", onDismiss))],
  },
  h(mui.Typography, { variant: "body2", component: "div" }, text),
  h(mui.Typography, { variant: "caption", component: "div", sx: { fontSize: 12 } }, `${what ? `${what}, ` : ""}${ago(at)}`));
}

/** Whatever a section has to tell. */
export function TroublesOf({ title }) {
  return (useContext(Troubles)[title] || []).map((trouble) => h(Trouble, trouble));
}
