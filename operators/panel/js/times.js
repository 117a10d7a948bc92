/* Moments, as seconds since the epoch, in words that go on being true. */
import { useEffect, useState } from "./app.js";

const TICK_MILLISECONDS = 20000;
const [MINUTE, HOUR, DAY] = [60, 3600, 86400];

/** How long ago a moment was: "just now", "3 min ago", "2 h ago", "5 days ago". */
export function ago(at, now = Date.now() / 1000) {
  // Clocks of two machines differ.
  const seconds = Math.max(0, now - at);
  if (seconds < 0.75 * MINUTE) return "just now";
  if (seconds < 59.5 * MINUTE) return `${Math.max(1, Math.round(seconds / MINUTE))} min ago`;
  if (seconds < 36 * HOUR) return `${Math.max(1, Math.round(seconds / HOUR))} h ago`;
  return `${Math.round(seconds / DAY)} days ago`;
}

/** Draws the component that calls it anew every 20 seconds, and with it every `ago` in it. */
export function useTicking() {
  const [, setTick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => setTick((number) => number + 1), TICK_MILLISECONDS);
    return () => clearInterval(timer);
  }, []);
}
