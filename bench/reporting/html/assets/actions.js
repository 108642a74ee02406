// --- copying the view, comparing rows, downloads, the sections below ------------------------------------------------

const visible = () => headers.map((name, i) => [name, 1 + i]).filter(([, column]) => board.column(column).visible());
const shownRows = () => board.rows({ search: "applied", order: "applied" }).data().toArray();
const grid = () => [visible().map(([name]) => name), ...shownRows().map((row) => visible().map(([, column]) => text(row[column])))];
const latex = (cell) => cell.replace(/[\\&%$#_{}~^]/g, (one) => ({ "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" })[one] ?? `\\${one}`)
  .replace(/±/g, "$\\pm$").replace(/×/g, "$\\times$").replace(/†/g, "$\\dagger$").replace(/‡/g, "$\\ddagger$").replace(/◆/g, "$\\diamond$").replace(/[–—]/g, "--");
const copies = {
  Markdown: () => {
    const [names, ...body] = grid();
    const line = (cells) => `| ${cells.map((cell) => cell.replace(/[\\|<>*_[\]]/g, "\\$&")).join(" | ")} |`;
    return [line(names), `|${visible().map(([, column]) => head[column - 1].classList.contains("number") ? " --: |" : " :-- |").join("")}`, ...body.map(line)].join("\n");
  },
  LaTeX: () => {
    const [names, ...body] = grid();
    const line = (cells) => `${cells.map(latex).join(" & ")} \\\\`;
    const align = visible().map(([, column]) => head[column - 1].classList.contains("number") ? "r" : "l").join("");
    return [`\\begin{tabular}{${align}}`, "\\toprule", line(names), "\\midrule", ...body.map(line), "\\bottomrule", "\\end{tabular}"].join("\n");
  },
  CSV: () => grid().map((cells) => cells.map((cell) => /[",\n]/.test(cell) ? `"${cell.replace(/"/g, '""')}"` : cell).join(",")).join("\n"),
  sweep: async () => {
    const cells = new Set(shownRows().filter((row) => !row[PINNED] || shownRows().every((one) => one[PINNED])).map((row) => JSON.stringify(cellOf(row))));
    const known = (await lines("views")).filter(Boolean).map((line) => JSON.parse(line));
    return known.filter(({ cell }) => cells.has(JSON.stringify(AGREE.map((name) => cell[VIEW.indexOf(name)])))).map(({ command }) => command).join("\n\n");
  },
};
const VIEW = ["dataset", "ipc", "evaluated on", "protocol"]; // as the page's data name a cell
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const copied = await copies[button.dataset.copy]();
    const area = make("textarea", { value: copied, readOnly: true, rows: 12, cols: 80 });
    area.setAttribute("aria-label", `This view as ${button.dataset.copy}`);
    button.closest(".menu > div").querySelector("textarea")?.remove();
    button.closest(".menu > div").append(area);
    area.select(); // stays selected, to be copied by hand
    await navigator.clipboard?.writeText(copied).then(() => say("Copied."), () => say("Selected: copy it."));
  });
}

byId("board").addEventListener("change", (event) => {
  if (!event.target.matches(".ticked")) return;
  const index = Number(event.target.dataset.row);
  if (event.target.checked) ticked.add(index); else ticked.delete(index);
  counted();
});
const counted = () => {
  byId("compare").disabled = ticked.size < 2;
  document.querySelector("#compare-menu > summary").textContent = ticked.size ? `Compare (${ticked.size})` : "Compare";
};
byId("untick").addEventListener("click", () => {
  ticked.clear();
  for (const box of document.querySelectorAll(".ticked")) box.checked = false;
  byId("compared").hidden = true;
  counted();
});
byId("compare").addEventListener("click", async () => {
  const shown = await compared([...ticked].map((index) => rows[index]));
  byId("compared").replaceChildren(shown);
  byId("compared").hidden = false;
  byId("compare-menu").open = false;
  byId("compared").querySelector("h3").focus();
});

for (const button of document.querySelectorAll("[data-download]")) {
  button.addEventListener("click", async () => {
    const file = new Blob([await unpack(button.dataset.download)], { type: "text/plain" });
    const link = make("a", { href: URL.createObjectURL(file), download: button.dataset.name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

// a link to a section opens it; on paper all are open
const openSection = () => {
  const section = location.hash.includes("=") ? null : byId(decodeURIComponent(location.hash.slice(1)));
  const folded = section?.querySelector("details.section");
  if (folded) { folded.open = true; section.scrollIntoView(); }
};
for (const link of document.querySelectorAll("nav a")) {
  link.addEventListener("click", () => {
    const folded = byId(link.hash.slice(1))?.querySelector("details.section");
    if (folded) folded.open = true;
  });
}
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details.section")) folded.open = true;
});
addEventListener("hashchange", () => {
  if (location.hash.includes("=")) { readAddress(); show(); } else openSection();
});
const landing = location.hash;
board.rows.add(rows);
readAddress();
show();
if (landing && !landing.includes("=")) { history.replaceState(null, "", landing); openSection(); }
