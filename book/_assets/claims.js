// Filters and sorting of the table of claims (rkd.report.verdicts.claims_table). The table is complete without it.
(() => {
  const text = (row) => row.textContent.toLowerCase() + " " + row.id;

  function enliven(view) {
    const form = view.querySelector("form");
    const body = view.querySelector("tbody");
    const rows = [...body.rows]; // in the order of the declaration
    const status = form.querySelector("[role=status]");
    const heads = [...view.querySelectorAll("thead th[aria-sort]")];
    let sorted = { column: -1, down: false };

    function filter() {
      const wanted = Object.fromEntries(new FormData(form));
      const words = wanted.q.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const fits =
          (!wanted.kind || row.dataset.kind === wanted.kind) &&
          (!wanted.verdict || row.dataset.verdict === wanted.verdict) &&
          (!wanted.source || row.dataset.source === wanted.source) &&
          (!wanted.chapter || row.dataset.chapter.split(" ").includes(wanted.chapter)) &&
          words.every((word) => text(row).includes(word));
        row.hidden = !fits;
        shown += fits;
      }
      status.textContent = shown
        ? `${shown} of ${rows.length} claims shown`
        : `none of ${rows.length} claims fits; choose "Show all" to see them`;
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
      if (sorted.column !== column) sorted = { column, down: false };
      else if (!sorted.down) sorted = { column, down: true };
      else sorted = { column: -1, down: false };
      heads.forEach((head, i) => {
        const direction = sorted.down ? "descending" : "ascending";
        head.setAttribute("aria-sort", i === sorted.column ? direction : "none");
      });
      const key = (row) => row.cells[sorted.column].dataset.sort;
      const order = [...rows];
      if (sorted.column >= 0)
        order.sort((a, b) => {
          const [x, y] = [key(a), key(b)];
          if (!x || !y) return !x - !y; // nothing to sort by: last, up and down
          const up = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
          return sorted.down ? -up : up;
        });
      body.append(...order);
    }

    heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => sort(i)));
    for (const event of ["input", "change"]) form.addEventListener(event, filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", (event) => {
      event.preventDefault(); // the controls would change only after this
      for (const control of form.elements) if (control.name) control.value = "";
      filter();
    });
    recall();
    form.hidden = false;
    view.classList.add("live");
    filter();
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && view.contains(target)) target.querySelector("details").open = true;
  }

  for (const view of document.querySelectorAll(".rkd-claims-view:not(.live)")) enliven(view);
})();
