/* Sections, in the order in which they are shown and asked for. */
export const SECTIONS = ["references", "index", "segment", "suggested", "review", "results", "inspection"];

/** What each is called. */
export const TITLES = {
  references: "References", index: "Index", segment: "Segment", suggested: "Suggested references", review: "Review", results: "Results",
  similar: "Similar objects",
};
