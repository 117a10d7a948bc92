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
    "above", "app", "calls", "changes", "confusion", "indexing", "looking", "names", "nearest", "panel", "pieces",
    "references", "results", "review", "segment", "showing", "suggested",
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
})();
