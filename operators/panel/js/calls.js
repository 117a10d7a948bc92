/* What the panel asks Python for, and when it asks again. */
import { executeOperator, selectedLabelTypes, useCallback, useEffect, usePanelEvent, usePanelId, useRecoilValue, useRef, useState } from "./app.js";
import { SECTIONS } from "./names.js";

const POLL_MILLISECONDS = 1000;
const READING_MILLISECONDS = 500;
const PATIENCE_MILLISECONDS = 5000;
const FIRST_PAUSE_MILLISECONDS = 2000;
const POLLS_UNTIL_LOST = 15; // a job neither running nor ended for so long was killed
const PICTURES_A_REQUEST = 48;
const IMAGE_TAB = "[data-cy=panel-tab-fo-sample-modal-plugin]"; // what FiftyOne calls the open image among its panels
const CALM_TRIES = 15;

/**
 * Bring the open image to the front of the panels beside it, as soon as it is open and until it stays there: the App may open
 * the image anew after it was asked to.
 */
function showImage(tries = 100, calm = 0) {
  const tab = document.querySelector(`[data-cy=modal] ${IMAGE_TAB}`);
  const image = document.querySelector("[data-cy=modal] [data-cy=modal-looker-container]");
  const isShown = Boolean(image && image.getClientRects().length);
  if (tab && !isShown) tab.click();
  if (tries && calm < CALM_TRIES) setTimeout(() => showImage(tries - 1, tab && isShown ? calm + 1 : 0), 100);
}

const TURNS = ["accept_above", "choose", "decide", "decide_selected", "undo", "take_suggestion", "drop_reference", "undo_inspected"];

/** A function that calls a method of the panel and resolves to what it returns; the same one for the panel's life. */
export function useCall(schema) {
  const panelId = usePanelId();
  const handle = usePanelEvent();
  const latest = useRef(null);
  const chosen = useRef(Promise.resolve());
  latest.current = { handle, panelId, view: schema.view };
  return useCallback((method, params = {}) => {
    const ask = () => new Promise((resolve) => {
      const { handle: send, panelId: id, view } = latest.current;
      send(id, { operator: view[method], params, callback: (answer) => resolve(answer ? answer.result : undefined) });
    });
    if (["pictures", "suggestion_pictures"].includes(method)) return ask();
    // A button pressed while its field is still being left waits until what was typed there is kept, and a decision or its
    // undoing waits for the one before.
    const answer = chosen.current.then(ask);
    if (TURNS.includes(method)) chosen.current = answer;
    // The panel may lie before the image that it opens.
    if (method === "open_image" || (method === "decide" && params.kind === "fix")) answer.then((done) => { if (done !== undefined && done !== null) showImage(); });
    // Sections that were asked for before a change must not come after it: it waits for them, but not for ever, should the
    // server be gone.
    const patience = () => new Promise((done) => setTimeout(done, PATIENCE_MILLISECONDS));
    if (["load", "watch"].includes(method)) chosen.current = Promise.race([answer, patience()]);
    return answer;
  }, []);
}

/** Pictures by label id, asked for once each; `wanted` holds {id, field, sample_id}, `side` is that of a crop in pixels. */
export function usePictures(call, wanted, large, side) {
  const [known, setKnown] = useState({});
  const asked = useRef(new Set());
  const wantedIds = useRef(new Set());
  wantedIds.current = new Set(wanted.map((item) => item.id));
  const missing = wanted.filter((item) => !asked.current.has(item.id)).slice(0, large ? 1 : PICTURES_A_REQUEST);
  useEffect(() => {
    if (!missing.length) return;
    missing.forEach((item) => asked.current.add(item.id));
    const plain = missing.map(({ id, field, sample_id }) => ({ id, field, sample_id }));
    call("pictures", { wanted: plain, large, side }).then((found) => {
      if (!found) plain.forEach((item) => asked.current.delete(item.id));
      const rest = Object.fromEntries(found ? plain.map((item) => [item.id, null]) : []);
      setKnown((before) => {
        // Large ones are let go once they are not wanted any more.
        const kept = large ? Object.entries(before).filter(([id]) => wantedIds.current.has(id)) : Object.entries(before);
        if (large) asked.current = new Set([...asked.current].filter((id) => wantedIds.current.has(id)));
        return { ...Object.fromEntries(kept), ...rest, ...(found || {}) };
      });
    });
  }, [missing.map((item) => item.id).join()]);
  return known;
}

/**
 * Let the grid show what a run has found so far while it goes on: at once, then after two seconds, four, eight and so on. An open
 * image is left alone.
 */
function showFound(job, shown) {
  const before = shown.get(job.id), now = Date.now();
  if (!job.found || document.querySelector("[data-cy=modal]")) return;
  if (before && (job.found === before.found || now < before.at + before.pause)) return;
  shown.set(job.id, { found: job.found, at: now, pause: before ? 2 * before.pause : FIRST_PAUSE_MILLISECONDS });
  // The App does not know a field that is new.
  executeOperator(before ? "reload_samples" : "reload_dataset", {});
}

/** Watches jobs until they end. Returns a function that takes the id of a job just started. */
export function useWatch(call, jobs) {
  const known = useRef(new Map());
  const shown = useRef(new Map());
  const [tick, setTick] = useState(0);
  for (const job of jobs) if (!known.current.has(job.id)) known.current.set(job.id, 0);
  useEffect(() => {
    if (!known.current.size) return undefined;
    const timer = setTimeout(async () => {
      const answer = await call("watch", { known: [...known.current.keys()] });
      if (answer) {
        const alive = new Set(answer.jobs.map((job) => job.id));
        answer.jobs.forEach((job) => showFound(job, shown.current));
        for (const [id, misses] of [...known.current]) {
          if (answer.ended.includes(id)) known.current.delete(id);
          else if (alive.has(id)) known.current.set(id, 0);
          else if (misses < POLLS_UNTIL_LOST) known.current.set(id, misses + 1);
          else { known.current.delete(id); call("load", { anew: true }); }
        }
      }
      setTick((number) => number + 1);
    }, POLL_MILLISECONDS);
    return () => clearTimeout(timer);
  }, [tick, jobs.length]);
  return (id) => { known.current.set(id, 0); setTick((number) => number + 1); };
}

/** Sections that are known; those whose labels are still being read are asked for again until they are. */
export function useSections(callOf, data) {
  const waiting = SECTIONS.filter((name) => data[name] && data[name].is_reading);
  const [tick, setTick] = useState(0);
  useEffect(() => {
    if (!waiting.length) return undefined;
    const timer = setTimeout(async () => {
      // One that failed has been told, and would be told again and again.
      if (await callOf(waiting[0])("load", { sections: waiting })) setTick((number) => number + 1);
    }, READING_MILLISECONDS);
    return () => clearTimeout(timer);
  }, [tick, waiting.join()]);
  return [Object.fromEntries(SECTIONS.filter((name) => data[name] && !waiting.includes(name)).map((name) => [name, data[name]])), waiting.length > 0];
}

/** What is selected. FiftyOne 1.22 does not tell Python which labels were selected with Alt, so they are counted here. */
export function useSelection(selection) {
  const types = Object.values(useRecoilValue(selectedLabelTypes));
  if (!types.length || !selection) return selection;
  const num_negatives = types.filter((type) => type === "alt").length;
  return { ...selection, what: "object", num_references: types.length - num_negatives, num_negatives };
}
