// Filters and sorting of the table of claims (rkd.report.verdicts.claims_table). The table is complete without it.
(() => {
  const texts = new WeakMap(); // of rows, read once: there are hundreds
  const text = (row) => {
    if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase() + " " + row.id);
    return texts.get(row);
  };

  function enliven(view) {
    const form = view.querySelector("form");
    const body = view.querySelector("tbody");
    const rows = [...body.rows]; // in the order of the declaration
    const status = form.querySelector("[role=status]");
    const heads = [...view.querySelectorAll("thead th[aria-sort]")];
    const folds = rows.length > 60 ? chapters() : []; // a long table starts as its chapters
    let sorted = { column: -1, down: false };

    // A heading for each chapter, which opens and closes its rows.
    function chapters() {
      const found = new Map();
      for (const row of rows) {
        const cell = row.cells[4];
        if (!found.has(cell.dataset.sort)) found.set(cell.dataset.sort, { name: cell.textContent, rows: [], open: false });
        found.get(cell.dataset.sort).rows.push(row);
      }
      const made = [...found].sort(([a], [b]) => a - b).map(([, fold]) => fold);
      for (const fold of made) {
        const counts = new Map();
        for (const { dataset } of fold.rows) counts.set(dataset.verdict, (counts.get(dataset.verdict) || 0) + 1);
        const said = [...counts].map(([verdict, count]) => `${count} ${verdict}`).join(", ");
        fold.head = document.createElement("tr");
        fold.head.className = "rkd-fold";
        fold.head.setAttribute("role", "row");
        fold.head.innerHTML = '<th role="rowheader"><button type="button"><b></b><span></span></button></th>';
        fold.button = fold.head.querySelector("button");
        fold.button.querySelector("b").textContent = fold.name;
        fold.button.querySelector("span").textContent = ` – ${said}`;
        fold.button.addEventListener("click", () => {
          fold.open = !fold.open;
          show(fold, false);
        });
      }
      return made;
    }

    function show(fold, flat) {
      fold.button.setAttribute("aria-expanded", String(fold.open));
      for (const row of fold.rows) row.classList.toggle("folded", !flat && !fold.open);
    }

    // By chapter while nothing is searched, chosen or sorted; else what fits, one after another.
    function layout(grouped) {
      const flat = !grouped || !folds.length;
      for (const fold of folds) {
        fold.head.remove();
        show(fold, flat);
      }
      if (flat) body.append(...ordered());
      else for (const fold of folds) body.append(fold.head, ...fold.rows);
    }

    const everything = () => sorted.column < 0 && ![...new FormData(form).values()].some(Boolean);

    function filter() {
      const wanted = Object.fromEntries(new FormData(form));
      const words = wanted.q.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const fits =
          (!wanted.kind || row.dataset.kind === wanted.kind) &&
          (!wanted.verdict || row.dataset.verdict === wanted.verdict) &&
          (!wanted.source || row.dataset.source.split(", ").includes(wanted.source)) &&
          (!wanted.chapter || row.dataset.chapter.split(" ").includes(wanted.chapter)) &&
          words.every((word) => text(row).includes(word));
        row.hidden = !fits;
        shown += fits;
      }
      status.textContent = !shown
        ? `none of ${rows.length} claims fits; choose "Show all" to see them`
        : folds.length && everything()
          ? `${rows.length} claims in ${folds.length} chapters; open one, or choose above`
          : `${shown} of ${rows.length} claims shown`;
      layout(everything());
      remember(wanted);
    }

    // The address names what is shown, so that it can be passed on.
    function remember(wanted) {
      const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value)).toString();
      if (location.protocol.startsWith("http") && query !== location.search.slice(1))
        history.replaceState(null, "", `${location.pathname}${query && "?" + query}${location.hash}`);
    }

    function recall() {
      for (const [name, value] of new URLSearchParams(location.search)) {
        const control = form.elements.namedItem(name);
        if (control) control.value = value;
        if (control && control.selectedIndex === -1) control.value = "";
      }
    }

    // Once up, once down, and back to the order of the declaration.
    function sort(column) {
      if (column < 0) sorted = { column: -1, down: false };
      else if (sorted.column !== column) sorted = { column, down: false };
      else if (!sorted.down) sorted = { column, down: true };
      else sorted = { column: -1, down: false };
      heads.forEach((head, i) => {
        const direction = sorted.down ? "descending" : "ascending";
        head.setAttribute("aria-sort", i === sorted.column ? direction : "none");
      });
      filter();
    }

    function ordered() {
      const key = (row) => row.cells[sorted.column].dataset.sort;
      const order = [...rows];
      if (sorted.column >= 0)
        order.sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          if (!x || !y) return !x - !y; // nothing to sort by: last, up and down
          const up = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
          return sorted.down ? -up : up;
        });
      return order;
    }

    heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => sort(i)));
    for (const event of ["input", "change"]) form.addEventListener(event, filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", (event) => {
      event.preventDefault(); // the controls would change only after this
      for (const control of form.elements) if (control.name) control.value = "";
      sort(-1);
    });
    recall();
    form.hidden = false;
    view.classList.add("live");
    filter();
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && view.contains(target)) {
      const fold = folds.find((f) => f.rows.includes(target));
      if (fold) fold.open = true;
      layout(everything());
      target.querySelector("details").open = true;
      target.scrollIntoView();
    }
  }

  for (const view of document.querySelectorAll(".rkd-claims-view:not(.live)")) enliven(view);
})();
