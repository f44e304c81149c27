"use strict";
const table = document.getElementById("results");
const rows = (of = table) => [...of.tBodies[0].rows];

function sortBy(header) {
  const whole = header.closest("table");
  const index = [...header.parentNode.children].indexOf(header);
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  const numeric = header.dataset.numeric === "1";
  const key = (row) => row.cells[index].dataset.sort;
  const compare = (a, b) => (numeric ? Number(a) - Number(b) : a.localeCompare(b, undefined, {numeric: true}));
  const sorted = rows(whole).sort((a, b) => {
    if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");  // what is unknown stays last
    return (ascending ? 1 : -1) * compare(key(a), key(b));
  });
  for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  whole.tBodies[0].append(...sorted);
}

for (const header of document.querySelectorAll("thead th")) {
  header.firstElementChild.addEventListener("click", () => sortBy(header));
}

function paint(plot) {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  for (const axis of [...plot.below, ...plot.left]) {
    axis.setv({
      axis_label_text_color: colour("--ink"), axis_label_text_font_style: "normal", major_label_text_color: colour("--soft"),
      axis_line_color: colour("--line"), major_tick_line_color: colour("--line"), minor_tick_line_color: null,
    });
  }
  for (const grid of plot.center.filter((part) => part.type === "Grid")) grid.grid_line_color = colour("--grid");
}

function link(plot) {
  const source = plot.renderers.map((renderer) => renderer.data_source).find((data) => data.name === "variants");
  const names = [...source.data.variant];
  const pick = (indices) => { source.selected.indices = indices; };
  for (const row of rows()) {
    const index = names.indexOf(row.dataset.variant);
    row.addEventListener("mouseenter", () => pick(index < 0 ? [] : [index]));
    row.addEventListener("mouseleave", () => pick([]));
  }
  source.selected.properties.indices.change.connect(() => {
    const picked = source.selected.indices.map((index) => names[index]);
    for (const row of rows()) row.classList.toggle("picked", picked.includes(row.dataset.variant));
  });
}

if (typeof plotItem !== "undefined") {
  Bokeh.embed.embed_item(plotItem).then((views) => {
    const plot = (views[0] ?? [...views][0]).model;
    paint(plot);
    link(plot);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => paint(plot));
    document.documentElement.dataset.drawn = "true";
  });
}
