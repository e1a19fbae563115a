/* Interactive pictures of the book: plots with real controls, the results explorer, the review path.
 *
 * Looks for figures of class rkd-plot, rkd-explorer and rkd-path. plotly.js is fetched only where a page holds a
 * plot: from beside this file (relative, so file:// works), or from window.rkdPlotly, a promise that an output outside
 * the book brings along. Until a picture is drawn, in print and without scripts its fallback image stands in its place.
 */
(() => {
  "use strict";
  if (window.rkdInteractive) {
    window.rkdInteractive.scan(); // one more output in Jupyter
    return;
  }
  const self = document.currentScript && document.currentScript.src;

  /* Colours that need a brighter twin on a dark page. */
  const DARK = {
    "#222222": "#e4e9ee", // ink
    "#6b7580": "#9aa5b0", // quiet
    "#0072b2": "#3f8fe0",
    "#56b4e9": "#9bd6f7",
    "#d55e00": "#f07f2f",
    "#009e73": "#1fc296",
    "#cc79a7": "#dd93bb",
  };
  const DASHES = { dot: "2 3", dash: "7 4", dashdot: "7 3 2 3", longdash: "12 4", longdashdot: "12 3 2 3" };
  const CONFIG = { displayModeBar: false, responsive: true, doubleClick: "reset" };

  let library = null;
  function plotly() {
    library ??= (async () => {
      if (!window.Plotly && window.rkdPlotly) await window.rkdPlotly;
      if (!window.Plotly) {
        await new Promise((loaded, failed) => {
          const script = document.createElement("script");
          script.src = self.replace(/interactive\.js.*$/, "plotly/plotly-cartesian.min.js");
          script.onload = loaded;
          script.onerror = () => failed(new Error(`${script.src} cannot be read`));
          document.head.append(script);
        });
      }
      return window.Plotly;
    })();
    return library;
  }

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name in element && name !== "list") element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  /* --- themes: read off the page, whoever made it --------------------------------------------------------------- */

  function theme(element) {
    const parts = (getComputedStyle(element).color.match(/[\d.]+/g) || [0, 0, 0]).map(Number);
    const [r, g, b] = parts;
    return {
      dark: 0.299 * r + 0.587 * g + 0.114 * b > 128, // light text stands on a dark page
      text: `rgb(${r},${g},${b})`,
      faint: (alpha) => `rgba(${r},${g},${b},${alpha})`,
    };
  }

  /* Calls back when an element that is seen has got another width. */
  function onWidth(element, changed) {
    let width = element.clientWidth;
    new ResizeObserver(() => {
      if (element.clientWidth && element.clientWidth !== width) {
        width = element.clientWidth;
        changed();
      }
    }).observe(element);
  }

  function shade(colour, dark) {
    return (dark && typeof colour === "string" && DARK[colour.toLowerCase()]) || colour;
  }

  function recoloured(value, dark) {
    if (Array.isArray(value)) return value;
    const out = {};
    for (const [key, inner] of Object.entries(value)) {
      if (key === "color" || key === "fillcolor") {
        out[key] = Array.isArray(inner) ? inner.map((c) => shade(c, dark)) : shade(inner, dark);
      } else {
        out[key] = inner && typeof inner === "object" && !Array.isArray(inner) ? recoloured(inner, dark) : inner;
      }
    }
    return out;
  }

  const listeners = new Set(); // redraw of every picture on the page
  let waiting = false;
  function themeChanged() {
    if (waiting) return;
    waiting = true;
    setTimeout(() => {
      waiting = false;
      tableTheme();
      for (const listener of listeners) listener();
    }, 30); // once the new styles are in force
  }
  /* DataTables takes its dark colours from this class. */
  function tableTheme() {
    if (document.querySelector(".rkd-explorer")) {
      document.documentElement.classList.toggle("dark", theme(document.querySelector(".rkd-explorer")).dark);
    }
  }
  const watch = new MutationObserver(themeChanged);
  const filter = ["data-theme", "data-mode", "data-jp-theme-light", "theme", "class"];
  watch.observe(document.documentElement, { attributes: true, attributeFilter: filter });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themeChanged);

  /* --- layout -------------------------------------------------------------------------------------------------- */

  const plain = (value) => value && typeof value === "object" && !Array.isArray(value);

  function merged(base, more) {
    const out = { ...base };
    for (const [key, value] of Object.entries(more)) {
      out[key] = plain(value) && plain(out[key]) ? merged(out[key], value) : value;
    }
    return out;
  }

  function nested(dotted) {
    const out = {};
    for (const [path, value] of Object.entries(dotted)) {
      const names = path.split(".");
      let place = out;
      for (const name of names.slice(0, -1)) place = place[name] ??= {};
      place[names.at(-1)] = value;
    }
    return out;
  }

  function themed(layout, colours, width) {
    const axis = {
      gridcolor: colours.faint(0.13),
      linecolor: colours.faint(0.4),
      zerolinecolor: colours.faint(0.2),
      tickcolor: colours.faint(0.4),
      spikecolor: colours.faint(0.5),
      spikethickness: 1,
      automargin: true,
      fixedrange: width < 600, // a finger on the picture scrolls the page
    };
    const out = merged(
      {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { color: colours.text, size: width < 600 ? 11 : 13, family: "inherit" },
        margin: { l: 10, r: 12, t: 10, b: 10 },
        hoverlabel: {
          bgcolor: colours.dark ? "#1f262e" : "#ffffff",
          bordercolor: colours.faint(0.4),
          font: { color: colours.text, size: 12 },
          namelength: -1,
        },
        dragmode: width < 600 ? false : "zoom",
        showlegend: false,
        uirevision: "same",
        modebar: { bgcolor: "rgba(0,0,0,0)" },
      },
      recoloured(layout, colours.dark),
    );
    for (const name of Object.keys(out)) {
      if (/^[xy]axis\d*$/.test(name)) out[name] = merged(axis, out[name]);
    }
    for (const name of ["xaxis", "yaxis"]) out[name] ??= axis;
    const counted = out.xaxis.title?.text;
    if (counted) out.xaxis.unifiedhovertitle ??= { text: `${counted} %{x}` };
    return out;
  }

  /* --- numbers --------------------------------------------------------------------------------------------------- */

  const abscissa = (trace, i) => (trace.x ? trace.x[i] : (trace.x0 ?? 0) + i * (trace.dx ?? 1));

  function valueAt(trace, x) {
    let found = null;
    for (let i = 0; i < trace.y.length && abscissa(trace, i) <= x; i += 1) found = trace.y[i];
    const last = abscissa(trace, trace.y.length - 1);
    return x > last ? null : found;
  }

  function rangeOf(traces, from, to, log) {
    let low = Infinity;
    let high = -Infinity;
    for (const trace of traces) {
      for (let i = 0; i < trace.y.length; i += 1) {
        const x = abscissa(trace, i);
        const y = trace.y[i];
        if (x >= from && x <= to && y !== null && (!log || y > 0)) {
          low = Math.min(low, y);
          high = Math.max(high, y);
        }
      }
    }
    if (low > high) return null;
    if (log) [low, high] = [Math.log10(low), Math.log10(high)];
    const room = 0.06 * (high - low) || 0.06 * Math.abs(high) || 1;
    return [low - room, high + room];
  }

  function said(value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size >= 10) return value.toFixed(2);
    return size >= 0.001 || size === 0 ? value.toPrecision(3) : value.toExponential(1);
  }

  /* --- a plot with its controls -------------------------------------------------------------------------------------- */

  class Plot {
    constructor(root) {
      this.root = root;
      this.spec = JSON.parse(root.querySelector("script[type='application/json']").textContent);
      this.area = root.querySelector(".rkd-plot-area");
      this.parts = []; // {facet, chosen: () => Set, patch: () => layout}
      this.gated = []; // [element, {facet: values}] shown only under certain choices
      this.samples = []; // [svg line, colour]
      this.groups = []; // [fieldset, labels] with buttons for all and none
      this.outputs = new Map(); // entry of the legend -> <output>
      this.legend = ""; // facet of the toggles with sample lines
      this.marker = null; // the input of a cursor
      this.pending = false;
    }

    async start() {
      const Plotly = await plotly();
      this.build(this.root.querySelector(".rkd-plot-controls"));
      this.area.style.height = `${this.spec.height}px`;
      this.area.setAttribute("role", "img");
      this.area.setAttribute("aria-label", this.spec.alt);
      this.root.classList.add("drawn"); // before drawing: a hidden box has no width
      await Plotly.newPlot(this.area, this.traces(), this.layout(), CONFIG);
      this.settle();
      listeners.add(() => this.draw());
      onWidth(this.area, () => {
        this.draw();
        Plotly.Plots.resize(this.area);
      });
    }

    draw() {
      if (this.pending) return;
      this.pending = true;
      requestAnimationFrame(() => {
        this.pending = false;
        window.Plotly.react(this.area, this.traces(), this.layout(), CONFIG);
        this.settle();
      });
    }

    selected() {
      const chosen = new Map();
      for (const part of this.parts) {
        if (!part.facet) continue;
        const all = chosen.get(part.facet) ?? new Set();
        for (const value of part.chosen()) all.add(value);
        chosen.set(part.facet, all);
      }
      return chosen;
    }

    shown(meta, chosen) {
      return Object.entries(meta ?? {}).every(([facet, value]) => !chosen.has(facet) || chosen.get(facet).has(value));
    }

    visible() {
      const chosen = this.selected();
      return this.spec.data.filter((trace) => this.shown(trace.meta, chosen));
    }

    traces() {
      const { dark } = theme(this.root);
      return this.visible().map((trace) => ({ ...recoloured(trace, dark) }));
    }

    layout() {
      const colours = theme(this.root);
      let layout = this.spec.layout;
      for (const part of this.parts) if (part.patch) layout = merged(layout, nested(part.patch()));
      layout = themed(layout, colours, this.area.clientWidth || this.root.clientWidth);
      const shown = this.visible();
      const last = Math.max(...shown.filter((t) => t.meta?.readout).map((t) => abscissa(t, t.y.length - 1)));
      if (layout.meta?.from && Number.isFinite(last)) {
        layout.xaxis = { ...layout.xaxis, range: [layout.meta.from * last, last] };
        const fitted = rangeOf(shown, ...layout.xaxis.range, layout.yaxis.type === "log");
        if (fitted) layout.yaxis = { ...layout.yaxis, range: fitted };
      }
      if (this.marker && Number.isFinite(last)) {
        this.reach(last);
        if (last <= 12) layout.xaxis = { ...layout.xaxis, dtick: 1 }; // whole numbers only
        const x = Number(this.marker.value);
        const line = { color: colours.faint(0.6), width: 1, dash: "dot" };
        const upright = { type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line };
        layout.shapes = [...(layout.shapes ?? []), upright];
      }
      layout.uirevision = JSON.stringify([layout.meta ?? null, ...["metric", "group"].map((f) => [...(this.selected().get(f) ?? [])])]);
      return layout;
    }

    /* The cursor goes as far as the longest line that is shown; one that stood at the end stays there. */
    reach(last) {
      const atEnd = this.marker.value === this.marker.max;
      this.marker.max = last;
      if (atEnd) this.marker.value = last;
      this.marker.nextElementSibling.textContent = this.marker.value;
    }

    /* What depends on the choices but is no part of the drawing. */
    settle() {
      const chosen = this.selected();
      for (const [element, only] of this.gated) {
        element.hidden = !Object.entries(only).every(([facet, values]) => values.some((v) => chosen.get(facet)?.has(v)));
      }
      const { dark } = theme(this.root);
      for (const [line, colour] of this.samples) line.setAttribute("stroke", shade(colour, dark));
      for (const [group, labels] of this.groups) {
        group.querySelector(".rkd-buttons").hidden = labels.filter((label) => !label.hidden).length < 4;
      }
      for (const output of this.outputs.values()) output.textContent = "";
      for (const trace of this.visible()) {
        const output = trace.meta?.readout && this.outputs.get(trace.meta[this.legend]);
        if (output) output.textContent = said(this.marker ? valueAt(trace, Number(this.marker.value)) : trace.y.at(-1));
      }
    }

    build(place) {
      if (this.spec.title) {
        place.setAttribute("role", "group");
        place.setAttribute("aria-label", `Controls of: ${this.spec.title}`);
      }
      for (const control of this.spec.controls) place.append(this[control.kind](control));
      if (!this.spec.controls.length) place.remove();
    }

    choice(control) {
      const entries = control.entries;
      const start = Math.max(0, entries.findIndex((entry) => entry.value === control.start));
      let input;
      let said = "";
      if (control.slider) {
        input = make("input", { type: "range", min: 0, max: entries.length - 1, step: 1 });
        input.value = start;
        said = make("output", {}, entries[start].label);
      } else {
        input = make("select", {}, ...entries.map((entry) => make("option", { value: entry.value }, entry.label)));
        input.selectedIndex = start;
      }
      const entry = () => entries[control.slider ? Number(input.value) : input.selectedIndex];
      input.dataset.facet = control.facet;
      input.addEventListener(control.slider ? "input" : "change", () => {
        if (control.slider) {
          said.textContent = entry().label;
          input.setAttribute("aria-valuetext", entry().label);
        }
        this.draw();
      });
      if (control.slider) input.setAttribute("aria-valuetext", entry().label);
      this.parts.push({ facet: control.facet, chosen: () => [entry().value], patch: () => entry().layout ?? {} });
      return make("label", { className: control.slider ? "rkd-slider" : "rkd-choice" }, make("span", {}, control.label), input, said);
    }

    toggles(control) {
      const boxes = [];
      const labels = control.entries.map((entry) => {
        const box = make("input", { type: "checkbox", value: entry.value });
        box.checked = !(control.off ?? []).includes(entry.value);
        box.addEventListener("change", () => this.draw());
        box.dataset.facet = control.facet;
        boxes.push(box);
        const label = make("label", { className: "rkd-toggle" }, box);
        if (entry.colour) label.append(this.sample(entry));
        label.append(make("span", {}, entry.label));
        if (entry.colour) {
          const output = make("output");
          this.outputs.set(entry.value, output);
          this.legend = control.facet;
          label.append(output);
        }
        if (entry.only) this.gated.push([label, entry.only]);
        return label;
      });
      this.parts.push({ facet: control.facet, chosen: () => boxes.filter((b) => b.checked).map((b) => b.value) });
      if (labels.length === 1) return labels[0];
      const group = make("fieldset", { className: "rkd-toggles" }, make("legend", {}, control.label), ...labels);
      const buttons = ["all", "none"].map((word) => {
        const button = make("button", { type: "button", className: "rkd-button" }, word);
        button.setAttribute("aria-label", `${control.label}: ${word}`);
        button.addEventListener("click", () => {
          for (const box of boxes) if (!box.closest("label").hidden) box.checked = word === "all";
          this.draw();
        });
        return button;
      });
      group.append(make("span", { className: "rkd-buttons" }, ...buttons));
      this.groups.push([group, labels]);
      return group;
    }

    sample(entry) {
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      svg.setAttribute("class", "rkd-sample");
      svg.setAttribute("aria-hidden", "true");
      svg.setAttribute("viewBox", "0 0 28 8");
      for (const [name, value] of Object.entries({ x1: 0, x2: 28, y1: 4, y2: 4, "stroke-width": 3 })) line.setAttribute(name, value);
      line.setAttribute("stroke-dasharray", DASHES[entry.dash] ?? "none");
      this.samples.push([line, entry.colour]);
      svg.append(line);
      return svg;
    }

    cursor(control) {
      const input = make("input", { type: "range", min: control.low, max: control.high, step: 1 });
      input.value = control.start ?? control.high;
      const output = make("output", {}, input.value);
      input.addEventListener("input", () => {
        output.textContent = input.value;
        this.draw();
      });
      this.marker = input;
      return make("label", { className: "rkd-slider" }, make("span", {}, control.label), input, output);
    }
  }

  /* --- the review path ------------------------------------------------------------------------------------------------ */

  class Path {
    constructor(root) {
      this.root = root;
      root.insertAdjacentHTML("afterbegin", root.querySelector("script[type='text/html']").textContent);
      this.select = root.querySelector("select");
      this.pairs = [...root.querySelectorAll(".rkd-pair")];
      this.level = -1; // chosen, of all pairs alike
    }

    start() {
      this.select.addEventListener("change", () => this.show());
      for (const pair of this.pairs) {
        const levels = [...pair.querySelectorAll("g.rkd-level")];
        for (const [i, group] of levels.entries()) {
          group.addEventListener("focus", () => this.choose(i));
          group.addEventListener("click", () => this.choose(i));
          group.addEventListener("keydown", (event) => {
            const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
            if (step) levels[Math.min(levels.length - 1, Math.max(0, i + step))].focus();
            if (event.key === "Enter" || event.key === " ") this.choose(i);
            if (step || event.key === "Enter" || event.key === " ") event.preventDefault();
          });
        }
      }
      this.root.classList.add("drawn");
      this.show();
    }

    choose(level) {
      this.level = level;
      this.show();
    }

    show() {
      for (const [i, pair] of this.pairs.entries()) {
        pair.hidden = i !== this.select.selectedIndex;
        const groups = [...pair.querySelectorAll("g.rkd-level")];
        const level = Math.min(this.level, groups.length - 1);
        for (const [j, group] of groups.entries()) group.setAttribute("aria-pressed", String(j === level));
        const [hint, ...details] = pair.querySelector(".rkd-details").children;
        hint.hidden = level >= 0;
        for (const [j, detail] of details.entries()) detail.hidden = j !== level;
      }
    }
  }

  /* --- the results explorer ------------------------------------------------------------------------------------------- */

  class Explorer {
    constructor(root) {
      this.root = root;
      this.spec = JSON.parse(root.querySelector("script[type='application/json']").textContent);
      this.area = root.querySelector(".rkd-plot-area");
      this.selects = new Map();
      this.smoke = null;
      this.api = null; // of the DataTable, once it is there
    }

    async start() {
      const Plotly = await plotly();
      this.build(this.root.querySelector(".rkd-plot-controls"));
      this.root.addEventListener("click", (event) => this.curves(event.target.closest("[data-curves]")));
      this.root.classList.add("drawn");
      this.area.setAttribute("role", "img");
      this.area.setAttribute("aria-label", this.spec.alt);
      await Plotly.newPlot(this.area, this.traces(), this.layout(), CONFIG);
      listeners.add(() => this.draw());
      onWidth(this.area, () => this.draw());
      const table = [...this.root.querySelectorAll("table")].find((node) => node.rkdApi);
      if (table) this.adopt(table.rkdApi);
      this.root.addEventListener("rkd-table", (event) => this.adopt(event.target.rkdApi));
      this.filter();
    }

    /* From now on the table decides what is shown, in which order: our filters, its search, its sorting. */
    adopt(api) {
      if (this.api) return;
      this.api = api;
      api.search.fixed("rkd", (text, data, index) => this.admits(this.spec.rows[index]));
      api.on("draw", () => this.draw());
      api.draw();
    }

    admits(row) {
      if (row.kind === this.spec.machinery && this.smoke && !this.smoke.checked) return false;
      return [...this.selects].every(([name, select]) => !select.value || row[name] === select.value);
    }

    listed() {
      if (!this.api) return this.spec.rows.filter((row) => this.admits(row));
      return this.api.rows({ search: "applied", order: "applied" }).indexes().toArray().map((i) => this.spec.rows[i]);
    }

    build(place) {
      place.setAttribute("role", "group");
      place.setAttribute("aria-label", "Filters of table and plot");
      for (const name of this.spec.filters) {
        const values = [...new Set(this.spec.rows.map((row) => row[name]))].filter(Boolean).sort();
        const options = values.map((value) => make("option", { value }, value));
        const select = make("select", {}, make("option", { value: "" }, "all"), ...options);
        select.dataset.filter = name;
        select.addEventListener("change", () => this.filter());
        this.selects.set(name, select);
        place.append(make("label", { className: "rkd-choice" }, make("span", {}, name), select));
      }
      const smoke = this.spec.rows.filter((row) => row.kind === this.spec.machinery).length;
      if (smoke) {
        this.smoke = make("input", { type: "checkbox" });
        this.smoke.checked = smoke === this.spec.rows.length;
        this.smoke.addEventListener("change", () => this.filter());
        const words = "smoke runs: they prove the machinery, they are no results";
        place.append(make("label", { className: "rkd-toggle" }, this.smoke, make("span", {}, words)));
      }
      const reset = make("button", { type: "button", className: "rkd-button" }, "clear filters");
      reset.addEventListener("click", () => {
        for (const select of this.selects.values()) select.value = "";
        if (this.api) this.api.search("");
        this.filter();
      });
      place.append(reset);
    }

    filter() {
      if (this.api) this.api.draw(); // its "draw" draws the plot
      else this.draw();
    }

    draw() {
      const listed = this.listed();
      const drawn = Math.min(listed.length, this.spec.most);
      const some = drawn < listed.length ? ` The plot shows the first ${drawn} of them.` : "";
      const words = `${listed.length} of ${this.spec.rows.length} configurations.${some}`;
      this.root.querySelector(".rkd-count").textContent = words;
      window.Plotly.react(this.area, this.traces(), this.layout(), CONFIG);
    }

    traces() {
      const { dark } = theme(this.root);
      const listed = this.listed().slice(0, this.spec.most);
      const traces = [];
      for (const [kind, style] of Object.entries(this.spec.kinds)) {
        const color = shade(style.colour, dark);
        const places = listed.map((row, i) => [row, i]).filter(([row]) => row.kind === kind && row.mean !== null);
        if (!places.length) continue;
        const single = places.flatMap(([row, i]) => row.runs.map((value) => [value, i]));
        traces.push({
          type: "scatter",
          mode: "markers",
          x: single.map((p) => p[0]),
          y: single.map((p) => p[1]),
          marker: { color, size: 6, opacity: 0.35 },
          hoverinfo: "skip",
          showlegend: false,
        });
        traces.push({
          type: "scatter",
          mode: "markers",
          name: kind,
          x: places.map(([row]) => row.mean),
          y: places.map(([, i]) => i),
          text: places.map(([row]) => escaped(row.place)),
          customdata: places.map(([row]) => [row.runs.length, row.low === null ? "" : `<br>95 %: ${row.low.toFixed(2)} to ${row.high.toFixed(2)}`]),
          hovertemplate: "%{text}<br>mean %{x:.2f} %, n = %{customdata[0]}%{customdata[1]}<extra></extra>",
          marker: { color, size: 10, symbol: style.symbol },
          error_x: { type: "data", color, thickness: 1.6, width: 4, array: places.map(([row]) => (row.high === null ? 0 : row.high - row.mean)) },
        });
      }
      return traces;
    }

    layout() {
      const listed = this.listed().slice(0, this.spec.most);
      const width = this.area.clientWidth || this.root.clientWidth;
      const narrow = width < 600; // names above the dots in place of beside them
      const height = 95 + (narrow ? 46 : 36) * Math.max(1, listed.length);
      this.area.style.height = `${height}px`;
      const name = (row, most) => `${escaped(cut(row.label, most))}<br><span style="opacity:0.75">${escaped(cut(row.pair, most))}</span>`;
      const beside = { tickvals: listed.map((_, i) => i), ticktext: listed.map((row) => name(row, Math.min(44, Math.round(width / 19)))), tickfont: { size: 11 } };
      const above = (row, i) => ({
        text: escaped(cut(`${row.label} · ${row.pair}`, Math.round(width / 5.6))),
        ...{ x: 0, xref: "paper", xanchor: "left", y: i, yshift: 16, showarrow: false, font: { size: 10 } },
      });
      const layout = {
        height,
        xaxis: { title: { text: "test accuracy, last epoch, %: mean and 95 % interval" }, unifiedhovertitle: { text: "" } },
        yaxis: {
          range: [listed.length - 0.4, narrow ? -0.9 : -0.6],
          ...(narrow ? { showticklabels: false, tickvals: beside.tickvals } : beside),
          fixedrange: true,
          zeroline: false,
        },
        hovermode: "closest",
        showlegend: true,
        legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", itemclick: false, itemdoubleclick: false },
        annotations: narrow ? listed.map(above) : [],
      };
      if (!listed.length) {
        layout.annotations = [{ text: "nothing matches these filters", x: 0.5, y: 0.5, xref: "paper", yref: "paper", showarrow: false }];
      }
      if (narrow) layout.xaxis.title.text = "test accuracy, last epoch, %";
      return themed(layout, theme(this.root), width);
    }

    /* A row's button: its training curves, in the picture below. */
    curves(button) {
      const select = button && document.querySelector("select[data-facet='group']");
      if (!select) return;
      select.value = button.dataset.curves;
      select.dispatchEvent(new Event("input"));
      select.closest("figure").scrollIntoView({ block: "start" });
      select.focus({ preventScroll: true });
    }
  }

  /* plotly reads tags in texts */
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  /* --- everything on the page -------------------------------------------------------------------------------------- */

  const KINDS = { "rkd-plot": Plot, "rkd-path": Path, "rkd-explorer": Explorer };

  function scan() {
    if (document.body) watch.observe(document.body, { attributes: true, attributeFilter: filter });
    tableTheme();
    for (const [name, Kind] of Object.entries(KINDS)) {
      for (const root of document.querySelectorAll(`.${name}:not(.rkd-started)`)) {
        // an output that was cleaned of its scripts, as Jupyter does with a notebook it does not trust, keeps its fallback
        if (!root.querySelector("script[type='application/json'], script[type='text/html']")) continue;
        root.classList.add("rkd-started");
        Promise.resolve()
          .then(() => new Kind(root).start())
          .catch((error) => {
            root.classList.remove("drawn"); // the fallback stays
            console.error(`${name}: ${error.message}`);
          });
      }
    }
  }

  window.rkdInteractive = { scan };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", scan);
  else scan();
})();
