/* Sections, in the order in which they are shown and asked for. */
export const SECTIONS = ["references", "index", "segment", "suggested", "review", "results", "inspection"];
