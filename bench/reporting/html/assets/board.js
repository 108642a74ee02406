// --- the leaderboard: one data set, ipc, network and protocol at a time -----------------------------------------

const escape = DataTable.util.escapeHtml;
const rows = read("rows").map((cells, index) => [index, ...cells]);
const columnOf = (name) => 1 + headers.indexOf(name);
const PINNED = 1 + headers.length; // 1 for a reference line
const METHOD = columnOf("method");
const text = (cell) => (Array.isArray(cell) ? cell[0] : cell);
const value = (cell) => (Array.isArray(cell) ? cell[1] : cell);
const base = (row) => row[METHOD].replace(/ [†‡]$/, "").split("[")[0];

// a cell of the leaderboard is a choice in each of these; "all" is every one, and stands for the whole set's ipc
const AGREE = head.map((cell, i) => [cell, i]).filter(([, i]) => byId(`filter-${i}`)).map(([cell]) => cell.textContent.trim());
const ALL = "all";
const IPC = columnOf("ipc");
const agrees = (row, name, wanted) => wanted === ALL || text(row[columnOf(name)]) === wanted
  || (columnOf(name) === IPC && text(row[IPC]) === ALL);
const cellOf = (row) => AGREE.map((name) => text(row[columnOf(name)]));

// the cell with the most rows among those that have what is asked for, and as much as can be of what was shown
const bestCovered = (asked, shown) => {
  const cells = new Map();
  for (const row of rows) {
    if (row[PINNED] || (text(row[IPC]) === ALL)) continue;
    const cell = cellOf(row);
    const key = JSON.stringify(cell);
    if (!cells.has(key)) cells.set(key, { cell, count: 0, seeds: 0 });
    const found = cells.get(key);
    found.count += 1;
    found.seeds += value(row[columnOf("seeds × students")]);
  }
  const fits = [...cells.values()].filter(({ cell }) => AGREE.every((name, i) => !asked[name] || asked[name] === ALL || cell[i] === asked[name]));
  const kept = ({ cell }) => AGREE.filter((name, i) => shown[name] === cell[i]).length;
  fits.sort((a, b) => kept(b) - kept(a) || b.count - a.count || b.seeds - a.seeds);
  const best = fits[0]?.cell ?? cellOf(rows[0] ?? []);
  return Object.fromEntries(AGREE.map((name, i) => [name, asked[name] === ALL ? ALL : best[i]]));
};

// --- cells as they are drawn ------------------------------------------------------------------------------------

const papers = read("papers");
const paper = (name) => {
  if (!Object.hasOwn(papers, name)) return "";
  const [year, arxiv, code] = papers[name];
  const link = (address, shown, what) =>
    ` <a class="paper" href="https://${address}" rel="noreferrer" aria-label="${what} of ${escape(name)}">${shown}</a>`;
  return link(`arxiv.org/abs/${arxiv}`, year, "Paper") + (code ? link(`github.com/${code}`, "code", "Code") : "");
};
// settings are chips behind the name; lines may break after each
const method = (label) => {
  const [, name, settings, mark] = label.match(/^(.*?)(?:\[(.*)\])?( [†‡])?$/s);
  const broken = (part) => escape(part).replace(/[,=_]/g, "$&<wbr>");
  const chips = settings ? settings.split(/, (?=\w+=)/).map((chip) => `<span class="chip">${broken(chip)}</span>`) : [];
  return broken(name) + (mark ?? "") + chips.join("") + paper(name);
};
const bar = ([shown, mean, low, high, random, full]) => {
  if (mean == null) return escape(shown);
  const start = random ?? 0;
  const width = Math.max((full ?? 1) - start, 1e-9);
  const at = (x) => Math.min(100, Math.max(0, (100 * (x - start)) / width)).toFixed(1);
  const interval = low == null ? "" : `<u style="left:${at(low)}%;width:${(at(high) - at(low)).toFixed(1)}%"></u>`;
  return `${escape(shown)}<span class="bar" aria-hidden="true"><i style="width:${at(mean)}%"></i>${interval}</span>`;
};
const drawnAs = { method, "accuracy %": bar };

const columns = head.map((cell, i) => {
  const numeric = cell.classList.contains("number");
  const draw = drawnAs[headers[i]] ?? ((data) => escape(text(data)));
  return {
    cellType: i ? "td" : "th",
    createdCell: (made) => { if (!i) made.scope = "row"; },
    className: numeric ? "number" : "",
    type: numeric ? "num" : "string",
    visible: !("extra" in cell.dataset),
    orderSequence: numeric ? ["desc", "asc"] : ["asc", "desc"],
    // the library reads text for its search as HTML, so it is escaped like text that is shown
    render: (data, kind) => kind === "display" ? draw(data)
      : kind === "filter" ? escape(text(data)) : numeric ? value(data) : data,
  };
});
const ticked = new Set();
const opener = {
  className: "tick",
  orderable: false,
  searchable: false,
  render: (index, kind, row) => kind !== "display" ? index
    : `<button type="button" class="opener" aria-expanded="false" aria-label="Details of ${named(row)}"></button> `
      + `<input type="checkbox" class="ticked" data-row="${index}" ${ticked.has(index) ? "checked " : ""}aria-label="Compare ${named(row)}">`,
};
const named = (row) => escape([row[METHOD], `ipc ${text(row[IPC])}`, row[columnOf("evaluated on")]].join(", "));
const pinned = { data: PINNED, visible: false, searchable: false, type: "num" };
const board = new DataTable("#board", {
  data: [], // the rows come when it is known which are shown, so that they are drawn once
  columns: [opener, ...columns, pinned],
  order: [[columnOf("accuracy %"), "desc"]],
  orderMulti: true,
  autoWidth: false,
  deferRender: true,
  pageLength: 50,
  createdRow: (made, row) => made.classList.toggle("reference", row[PINNED] === 1),
  layout: { topStart: null, topEnd: null, bottomStart: ["info", "pageLength"], bottomEnd: "paging" },
  language: { emptyTable: "No row.", zeroRecords: "No row fits these filters." },
});

byId("board").addEventListener("click", async (event) => {
  const button = event.target.closest(".opener");
  if (!button) return;
  const row = board.row(button.closest("tr"));
  if (row.child.isShown()) {
    row.child.hide();
    button.setAttribute("aria-expanded", "false");
    return;
  }
  button.setAttribute("aria-expanded", "true");
  row.child(await detail(row.data()[0]), "detail").show();
});

// --- what is shown is in the address ------------------------------------------------------------------------------

const form = document.querySelector(".filters");
form.hidden = false;
const selects = new Map([...form.querySelectorAll("select[data-column]")].map((select) =>
  [headers[Number(select.dataset.column)], select]));
const state = { cell: {}, method: ALL, search: "", columns: new Map() };

const readAddress = () => {
  const asked = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  const cell = Object.fromEntries(AGREE.map((name) => [name, asked.get(name)]));
  state.method = asked.get("method") ?? ALL;
  state.search = asked.get("search") ?? "";
  state.columns = new Map((asked.get("columns") ?? "").split(",").filter(Boolean)
    .map((part) => [part.slice(1), part[0] === "+"]));
  if (state.method !== ALL) for (const name of AGREE) cell[name] ??= ALL; // all cells of one method
  state.cell = bestCovered(cell, {});
  const [name, direction] = (asked.get("order") ?? "accuracy %:desc").split(":");
  if (headers.includes(name)) board.order([[columnOf(name), direction === "asc" ? "asc" : "desc"]]);
};
const writeAddress = () => {
  const said = new URLSearchParams(state.cell);
  if (state.method !== ALL) said.set("method", state.method);
  if (state.search) said.set("search", state.search);
  const [[column, direction] = []] = board.order();
  if (column && !(headers[column - 1] === "accuracy %" && direction === "desc")) said.set("order", `${headers[column - 1]}:${direction}`);
  if (state.columns.size) said.set("columns", [...state.columns].map(([name, on]) => (on ? "+" : "-") + name).join(","));
  history.replaceState(null, "", `#${said}`);
};

// the lines of one cell are pinned to its head; those of several would hide what is looked for
const oneCell = () => AGREE.every((name) => state.cell[name] !== ALL);
const fits = (row) => AGREE.every((name) => agrees(row, name, state.cell[name]))
  && (state.method === ALL || base(row) === state.method || (row[PINNED] && oneCell()));
board.search.fixed("view", (_, row) => fits(row));

// a column whose rows all say the same is left out, and said above the table
const arrange = () => {
  const shown = board.rows({ search: "applied" }).data().toArray();
  const competing = shown.filter((row) => !row[PINNED]);
  const same = [];
  for (const [i, name] of headers.entries()) {
    const texts = new Set(competing.map((row) => text(row[1 + i])));
    const constant = name !== "method" && name !== "accuracy %" && (competing.length > 1 || AGREE.includes(name)) && texts.size <= 1;
    const nothing = [...texts].every((one) => one === "—" || one === "–");
    if (constant && !nothing && !("extra" in head[i].dataset)) same.push([name, [...texts][0]]);
    const wanted = state.columns.get(name) ?? (!constant && !nothing && !("extra" in head[i].dataset));
    if (board.column(1 + i).visible() !== wanted) board.column(1 + i).visible(wanted, false);
    byId(`column-${i}`).checked = wanted;
  }
  board.columns.adjust();
  byId("same").textContent = same.length ? `In all rows: ${same.map(([name, one]) => `${name} ${one}`).join(" · ")}` : "";
};
const show = () => {
  for (const [name, select] of selects) select.value = `=${state.cell[name]}`;
  byId("filter-method").value = `=${state.method}`;
  byId("search").value = state.search;
  board.order.fixed({ pre: oneCell() ? [[PINNED, "desc"]] : [] });
  board.search(state.search).draw();
  arrange();
  writeAddress();
};

const fill = (select, cells) => {
  const known = [...new Map(cells.map((cell) => [text(cell), cell])).values()].filter((cell) => text(cell) !== ALL);
  known.sort((one, other) => Array.isArray(one) ? one[1] - other[1] : one.localeCompare(other, "en", { numeric: true }));
  select.append(...known.map((cell) => new Option(text(cell), `=${text(cell)}`)), new Option(ALL, `=${ALL}`));
};
for (const [name, select] of selects) {
  fill(select, rows.map((row) => row[columnOf(name)]));
  select.addEventListener("change", () => {
    const chosen = select.value.slice(1);
    const wanted = { ...state.cell, [name]: chosen };
    const some = rows.some((row) => !row[PINNED] && AGREE.every((one) => agrees(row, one, wanted[one])));
    // where nothing was measured so, the nearest cell where something was
    state.cell = some || chosen === ALL ? wanted : bestCovered({ [name]: chosen }, state.cell);
    show();
  });
}
fill(byId("filter-method"), rows.map(base));
byId("filter-method").addEventListener("change", (event) => {
  state.method = event.target.value.slice(1);
  if (state.method !== ALL) for (const name of AGREE) state.cell[name] = ALL;
  else state.cell = bestCovered({}, {});
  show();
});
byId("search").addEventListener("input", (event) => {
  state.search = event.target.value;
  show();
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", (event) => {
  event.preventDefault();
  Object.assign(state, { cell: bestCovered({}, {}), method: ALL, search: "", columns: new Map() });
  show();
});
board.on("order", () => { if (state.cell[AGREE[0]]) writeAddress(); });
board.on("draw", () => {
  const shown = board.page.info().recordsDisplay;
  say(`${shown} ${shown === 1 ? "row" : "rows"}`);
});

for (const [i, name] of headers.entries()) {
  const box = make("input", { type: "checkbox", id: `column-${i}` });
  box.addEventListener("change", () => { state.columns.set(name, box.checked); show(); });
  byId("chooser").append(make("label", {}, box, name));
}
