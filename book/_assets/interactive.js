/* Interactive pictures of the book: figures of class rkd-figure, of three kinds. A form beside each picks what is seen.
 *
 * plotly.js is fetched only where a page holds a plot: from beside this file (relative, so file:// works), or from
 * window.rkdPlotly, a promise that an output outside the book brings along. DataTables always comes with its output.
 */
(() => {
  "use strict";
  if (window.rkdInteractive) {
    window.rkdInteractive(); // one more output in Jupyter
    return;
  }
  const self = document.currentScript?.src; // in the book alone

  function plotly() {
    window.rkdPlotly ??= new Promise((loaded, failed) => {
      const script = document.createElement("script");
      script.src = self.replace(/interactive\.js.*$/, "plotly/plotly-cartesian.min.js");
      script.onload = () => loaded(window.Plotly);
      script.onerror = () => failed(new Error(`${script.src} cannot be read`));
      document.head.append(script);
    });
    return window.rkdPlotly;
  }

  const specOf = (root) => JSON.parse(root.querySelector(":scope > script[type='application/json']").textContent);

  /* --- plots ----------------------------------------------------------------------------------------------------- */

  const listeners = new Set(); // redraw of every plot on the page
  const themed = () => setTimeout(() => listeners.forEach((draw) => draw()), 50); // once the new styles are in force

  /* Points of the rows that the table around the plot lists, in its order. */
  function listed(trace, rows) {
    const kept = trace.meta.rows.map((row, i) => [rows.indexOf(row), i]).filter(([place]) => place >= 0);
    const pick = (list) => list && kept.map(([, i]) => list[i]);
    const bars = trace.error_x && { ...trace.error_x, array: pick(trace.error_x.array) };
    return { ...trace, x: pick(trace.x), y: kept.map(([place]) => place), text: pick(trace.text), error_x: bars };
  }

  const places = (trace) => trace.x ?? trace.y.map((_, i) => trace.x0 + i * trace.dx);

  function since(trace, from) {
    const kept = places(trace).flatMap((x, i) => (x < from ? [] : [[x, trace.y[i]]]));
    return { ...trace, x: kept.map(([x]) => x), y: kept.map(([, y]) => y) };
  }

  async function plot(root, form) {
    const Plotly = await plotly();
    const spec = specOf(root);
    const area = root.querySelector(".rkd-area");
    const hidden = new Set(); // entries of the legend
    const frame = root.parentElement.closest("[data-kind=table]"); // points of its rows follow what it lists
    let rows = null;
    let width = 0;

    function traces(chosen) {
      const fits = ([name, value]) => !form?.elements[name] || chosen.getAll(name).includes(value);
      let shown = spec.data.filter((trace) => Object.entries(trace.meta?.facets ?? {}).every(fits));
      if (rows) shown = shown.map((trace) => listed(trace, rows)).filter((trace) => trace.x.length);
      const share = Number(chosen.get("from"));
      const last = share && Math.max(...shown.map((trace) => places(trace).at(-1)));
      if (share) shown = shown.map((trace) => since(trace, share * last));
      return shown.map((trace) => ({ ...trace, visible: hidden.has(trace.legendgroup) ? "legendonly" : true }));
    }

    function layout(chosen, data) {
      const made = structuredClone(spec.layout);
      const text = getComputedStyle(root).color;
      const light = text.match(/\d+/g).slice(0, 3).every((part) => part > 127); // light text stands on a dark page
      const narrow = width < 600;
      const names = data.filter((trace) => trace.showlegend !== false).map((trace) => trace.name.length);
      const columns = Math.max(1, Math.floor(width / (7.5 * Math.max(...names) + 50)));
      made.font = { color: text, size: narrow ? 11 : 13 };
      made.hoverlabel = { bgcolor: light ? "#1f262e" : "#ffffff", font: { color: text } };
      made.legend = { orientation: "h", x: 0, y: 1, yanchor: "bottom", traceorder: "normal", maxheight: 0.9 };
      made.height = spec.height + 20 * Math.ceil(names.length / columns);
      made.dragmode = narrow ? false : "zoom"; // a finger on the picture scrolls the page
      made.yaxis = { ...made.yaxis, ...data[0]?.meta?.yaxis };
      if (rows) {
        const ticktext = rows.map((row) => spec.layout.yaxis.ticktext[row]);
        const tickvals = rows.map((_, i) => i);
        const left = { x: 0, xref: "paper", xanchor: "left", yshift: 17, showarrow: false, font: { size: 10 } };
        const above = (text, y) => ({ ...left, y, text: text.replace("<br>", " · ") });
        Object.assign(made.yaxis, { ticktext, tickvals, range: [rows.length - 0.4, -1], showticklabels: !narrow });
        if (narrow) made.annotations = ticktext.map(above);
        made.height = 110 + (narrow ? 48 : 36) * Math.max(1, rows.length);
      }
      made.uirevision = [...chosen].filter(([name]) => name !== "at").join(); // a zoom stays while these do
      return made;
    }

    async function draw() {
      width = area.clientWidth;
      if (!width) return;
      rows = frame?.rkdRows?.slice(0, spec.layout.meta.most);
      const chosen = new FormData(form ?? undefined);
      const data = traces(chosen);
      const drawn = layout(chosen, data);
      area.style.height = `${drawn.height}px`;
      await Plotly.react(area, data, drawn, { displayModeBar: false, responsive: true, typesetMath: false });
      for (const entry of area.querySelectorAll(".legend .traces")) reach(entry);
    }

    function toggle(group, alone) {
      const others = spec.data.map((trace) => trace.legendgroup).filter((other) => other !== group);
      if (!alone) hidden.delete(group) || hidden.add(group);
      else if (others.every((other) => hidden.has(other))) hidden.clear();
      else others.forEach((other) => hidden.add(other)), hidden.delete(group);
      return draw();
    }

    /* plotly's legend answers to the mouse alone. */
    function reach(entry) {
      const { trace } = entry.__data__[0];
      const said = { role: "checkbox", tabindex: 0, "aria-checked": trace.visible === true, "aria-label": trace.name };
      for (const [name, value] of Object.entries(said)) entry.setAttribute(name, value);
      entry.dataset.entry = trace.legendgroup;
      entry.onkeydown = async (event) => {
        if (![" ", "Enter"].includes(event.key)) return;
        event.preventDefault();
        await toggle(trace.legendgroup, event.shiftKey);
        area.querySelector(`[data-entry="${CSS.escape(trace.legendgroup)}"]`)?.focus();
      };
    }

    root.classList.add("drawn"); // before drawing: a hidden box has no width
    form?.addEventListener("input", ({ target }) => {
      if (target.name === "at") Plotly.Fx.hover(area, { xval: Number(target.value) });
      else draw();
    });
    frame?.addEventListener("rkd-rows", draw);
    await new Promise((seen) => new ResizeObserver(() => area.clientWidth && seen()).observe(area)); // not while folded
    await draw();
    const group = ({ data, curveNumber }) => data[curveNumber].legendgroup;
    area.on("plotly_legendclick", (event) => void toggle(group(event)) ?? false);
    area.on("plotly_legenddoubleclick", (event) => void toggle(group(event), true) ?? false);
    listeners.add(draw);
    new ResizeObserver(() => area.clientWidth !== width && draw()).observe(area);
  }

  /* --- tables ---------------------------------------------------------------------------------------------------- */

  async function table(root, form) {
    const { default: DataTable, set_or_remove_dark_class: followTheme } = await window[root.dataset.library];
    const options = specOf(root);
    followTheme();
    root.classList.add("drawn");
    for (const [name, value] of new URLSearchParams(self && location.search)) {
      const control = form.elements[name];
      if ([...(control?.options ?? [])].some((option) => option.value === value)) control.value = value;
    }
    const api = new DataTable(root.querySelector("table"), options);
    const listed = () => api.rows({ search: "applied", order: "applied" }).indexes().toArray();
    api.search.fixed("chosen", (text, data, i) =>
      [...new FormData(form)].every(([name, value]) => !value || api.row(i).node().dataset[name].split("|").includes(value)),
    );
    api.on("draw", () => {
      root.rkdRows = listed();
      root.dispatchEvent(new Event("rkd-rows"));
    });

    /* The row that the address names: its page, unfolded; filters that leave it out are taken back. */
    function visit() {
      const row = location.hash && api.row(decodeURIComponent(location.hash));
      if (!row || !row.any()) return;
      if (!listed().includes(row.index())) {
        form.reset();
        api.search("").draw();
      }
      api.page(Math.floor(listed().indexOf(row.index()) / options.pageLength)).draw(false);
      row.node().querySelector("details").open = true;
      row.node().scrollIntoView();
    }

    form.addEventListener("input", () => {
      api.draw();
      const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
      if (self && location.protocol.startsWith("http")) history.replaceState(null, "", `?${query}${location.hash}`);
    });
    addEventListener("hashchange", visit);
    addEventListener("beforeprint", () => api.page.len(-1).draw());
    addEventListener("afterprint", () => api.page.len(options.pageLength).draw());
    api.draw();
    visit();
  }

  /* A row's button: its training curves, in the plot below. */
  document.addEventListener("click", ({ target }) => {
    const button = target.closest("[data-curves]");
    const select = button && document.querySelector(".rkd-figure select[name=group]");
    if (!select) return;
    select.value = button.dataset.curves;
    select.dispatchEvent(new Event("input", { bubbles: true }));
    select.closest("figure").scrollIntoView();
    select.focus({ preventScroll: true });
  });

  /* --- pagers ---------------------------------------------------------------------------------------------------- */

  function pager(root, form) {
    const show = () => root.querySelectorAll(":scope > .rkd-page").forEach((page, i) => (page.hidden = i !== Number(form.elements.page.value)));
    form?.addEventListener("input", show);
    root.classList.add("drawn");
  }

  /* --- everything on the page -------------------------------------------------------------------------------------- */

  const KINDS = { plot, table, pager };

  /* What a slider says of its place. */
  function say({ target }) {
    if (target.type !== "range") return;
    const words = target.dataset.said ? JSON.parse(target.dataset.said)[target.value] : target.value;
    target.nextElementSibling.textContent = words;
    target.setAttribute("aria-valuetext", words);
  }

  async function start(root) {
    const form = root.querySelector(":scope > form");
    root.classList.add("started");
    form?.addEventListener("input", say);
    try {
      await KINDS[root.dataset.kind](root, form);
    } catch (error) {
      root.classList.remove("drawn"); // the static picture stays
      console.error(`${root.dataset.kind}: ${error.message}`);
    }
  }

  function scan() {
    watch.observe(document.body, { attributes: true, attributeFilter }); // Jupyter's theme is an attribute there
    document.querySelectorAll(".rkd-figure[data-kind]:not(.started)").forEach(start);
  }

  const watch = new MutationObserver(themed);
  const attributeFilter = ["data-theme", "data-mode", "data-jp-theme-light", "theme", "class"];
  watch.observe(document.documentElement, { attributes: true, attributeFilter });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themed);
  window.rkdInteractive = scan;
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", scan);
  else scan();
})();
