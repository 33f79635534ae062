"use strict";
(() => {
  const root = document.documentElement;

  // ------------------------------------------------------------------ colours: as the system, light, dark
  const button = document.getElementById("theme");
  const themes = ["", "light", "dark"];
  const names = { "": "Colours: as the system", light: "Colours: light", dark: "Colours: dark" };
  const setTheme = (theme) => {
    if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
    button.textContent = names[theme];
  };
  let theme = "";
  try { theme = localStorage.getItem("voxark-theme") || ""; } catch { /* a page from a file may have no store */ }
  setTheme(themes.includes(theme) ? theme : "");
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(root.dataset.theme || "") + 1) % themes.length];
    setTheme(theme);
    try { localStorage.setItem("voxark-theme", theme); } catch { /* it holds for this visit */ }
  });

  // ------------------------------------------------------------------------------------------ sorted tables
  const keyOf = (cell) => {
    if (!cell) return null;
    const text = cell.dataset.value ?? cell.textContent.trim();
    if (text === "" || text === "-") return null;
    const number = Number(text);
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };
  const sortBy = (head) => {
    const descending = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = head.closest("table").tBodies[0];
    const column = head.cellIndex;
    const rows = [...body.rows].map((row) => [keyOf(row.cells[column]), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // what is not known stays below
      return descending ? compare(b, a) : compare(a, b);
    });
    body.append(...rows.map(([, row]) => row));
  };
  for (const sort of document.querySelectorAll("button.sort")) {
    sort.addEventListener("click", () => sortBy(sort.closest("th")));
  }

  // ------------------------------------------------------------------------------------------------ figures
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const touch = matchMedia("(pointer: coarse)").matches;
  const config = { displayModeBar: false, displaylogo: false, scrollZoom: false };
  // With a viewBox a figure fits its box even where there is no time to draw it anew, as in print.
  const scale = (box) => {
    for (const svg of box.querySelectorAll("svg.main-svg")) {
      svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
    }
  };
  const boxes = [...document.querySelectorAll(".plotly-figure")];
  for (const box of boxes) {
    const { data, layout } = figures[box.dataset.figure];
    if (touch) layout.dragmode = false;
    layout.width = box.clientWidth;
    layout.height = box.clientHeight;
    Plotly.newPlot(box, data, layout, config);
    scale(box);
    box.on("plotly_afterplot", () => scale(box));
  }
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const [width, height] = [target.clientWidth, target.clientHeight];
      if (!width || matchMedia("print").matches) continue;
      if (width !== target.layout.width || height !== target.layout.height) Plotly.relayout(target, { width, height });
    }
  });
  for (const box of boxes) sizes.observe(box);

  // ---------------------------------------------------------------------------------- which systems are shown
  const show = (system, shown) => {
    for (const input of document.querySelectorAll(`.chooser input[data-system="${system}"]`)) input.checked = shown;
    for (const figure of document.querySelectorAll(`figure[data-system="${system}"], .legend [data-system="${system}"]`)) {
      figure.hidden = !shown;
    }
    for (const box of boxes) {
      const places = box.data.flatMap((trace, place) => (trace.meta === Number(system) ? [place] : []));
      if (places.length) Plotly.restyle(box, { visible: shown }, places);
    }
  };
  for (const input of document.querySelectorAll(".chooser input")) {
    input.addEventListener("change", () => show(input.dataset.system, input.checked));
  }
})();
