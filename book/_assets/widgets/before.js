/* What the widget scripts expect to find in a page, said before they load. The book's own. */
(() => {
  "use strict";
  // They look for their icon font beside the module of this name.
  const here = document.currentScript.src.replace(/\/[^/]*$/, "");
  window.require = { paths: { "@jupyter-widgets/html-manager/dist": here } };

  // They set formulas through MathJax 2; the book carries MathJax 3, which replaces this object as it loads.
  const queue = ([, , element]) => window.MathJax.typesetPromise?.([element]);
  const dressed = (value) => {
    if (value && !value.Hub) Object.defineProperty(value, "Hub", { value: { Queue: queue }, enumerable: false });
    return value;
  };
  let mathjax = dressed(window.MathJax);
  Object.defineProperty(window, "MathJax", {
    configurable: true,
    enumerable: true,
    get: () => mathjax,
    set: (value) => {
      mathjax = dressed(value);
    },
  });

  // A screen reader is told what a slider moves.
  new MutationObserver(() => {
    for (const handle of document.querySelectorAll(".noUi-handle:not([aria-label])")) {
      const label = handle.closest(".widget-hslider, .widget-vslider")?.querySelector(".widget-label");
      if (label && label.textContent) handle.setAttribute("aria-label", label.textContent);
    }
  }).observe(document, { childList: true, subtree: true });
})();
