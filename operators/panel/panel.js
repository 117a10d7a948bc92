/*
 * The panel "Reference segmentation" in the browser. What it shows and what its buttons do is decided in Python (panel.py): each
 * section draws one object of `props.data`, and each press calls one method of the panel. Plain JavaScript on the libraries that
 * the App itself provides, so there is nothing to build and dark and light follow the App's theme.
 *
 * FiftyOne loads this one file. The panel itself is modules beside it, fetched once the panel is opened.
 */
(() => {
  "use strict";
  const { createElement, lazy, Suspense } = window.React;
  const { registerComponent, PluginComponentType } = window.__fop__;

  const MODULES = [
    "above", "app", "calls", "changes", "closer", "confusion", "heatmap", "indexing", "inspect", "looking", "names", "nearest",
    "panel", "pieces", "references", "results", "review", "segment", "showing", "similar", "suggested", "times", "troubles",
  ];
  const here = document.currentScript.src;

  async function load() {
    const addresses = MODULES.map((name) => new URL(`js/${name}.js`, here).href);
    // Modules have no hash in their address as this file has: the browser asks whether they are still what it holds, so that
    // none of an earlier version is used beside newer ones.
    await Promise.all(addresses.map((address) => fetch(address, { cache: "no-cache" })));
    const { RefSegPanel } = await import(new URL("js/panel.js", here).href);
    return { default: RefSegPanel };
  }

  const Panel = lazy(load);
  const component = (props) => createElement(Suspense, { fallback: null }, createElement(Panel, props));
  registerComponent({ name: "RefSegPanel", component, type: PluginComponentType.Component, activator: () => true });

  /*
   * What operators ask of the App at their end, and none of its own operators does: to switch fields on beside those that are, or
   * off, and to draw heatmaps in colours. The App does that only where it colours by value; what it coloured by before comes back.
   */
  const { Operator, OperatorConfig, executeOperator, registerOperator } = window.__foo__;
  const { activeFields, colorScheme } = window.__fos__;
  const { useRecoilCallback } = window.recoil;
  const STEPS = 256, SETTLED_MILLISECONDS = 500;
  let colouredBy = null;

  /** STEPS colours, as red, green and blue, along those given. */
  function spread(colours) {
    const corners = colours.map((colour) => [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16)));
    return Array.from({ length: STEPS }, (_, step) => {
      const place = (step / (STEPS - 1)) * (corners.length - 1);
      const left = Math.min(corners.length - 2, Math.floor(place));
      return corners[left].map((value, part) => Math.round(value + (place - left) * (corners[left + 1][part] - value)));
    });
  }

  function coloured(scheme, { path, colours }) {
    if (scheme.colorBy !== "value") colouredBy = scheme.colorBy;
    const rgb = spread(colours);
    const list = colours.map((color, number) => ({ value: number / (colours.length - 1), color }));
    const others = (scheme.colorscales || []).filter((one) => one.path !== path);
    return { ...scheme, colorBy: "value", colorscales: [...others, { path, name: null, list, rgb }] };
  }

  function uncoloured(scheme, hidden) {
    const others = (scheme.colorscales || []).filter((one) => !hidden.includes(one.path));
    const before = colouredBy && !others.length ? colouredBy : scheme.colorBy;
    if (!others.length) colouredBy = null;
    return { ...scheme, colorBy: before, colorscales: others };
  }

  class ShowFields extends Operator {
    get config() {
      return new OperatorConfig({ name: "show_fields", label: "Show fields", unlisted: true });
    }

    useHooks() {
      return {
        show: useRecoilCallback(({ snapshot, set }) => async ({ fields = [], hidden = [], scale = null }) => {
          const places = [false, true].map((modal) => activeFields({ modal }));
          const [scheme, ...active] = await Promise.all([colorScheme, ...places].map((state) => snapshot.getPromise(state)));
          if (scale) set(colorScheme, coloured(scheme, scale));
          else if (hidden.length) set(colorScheme, uncoloured(scheme, hidden));
          places.forEach((place, number) => {
            set(place, [...fields, ...active[number].filter((path) => !fields.includes(path) && !hidden.includes(path))]);
          });
        }),
      };
    }

    async execute({ hooks, params }) {
      await hooks.show(params);
      if (!params.hidden && !params.scale) return;
      // The grid mixes up what it has drawn and what it is to draw: drawn anew, all has its colours.
      await new Promise((done) => setTimeout(done, SETTLED_MILLISECONDS));
      await executeOperator("reload_samples", {});
    }
  }
  registerOperator(ShowFields, "@refseg/reference-segmentation");
})();
