"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(byId(id).textContent);
  const head = [...byId("board").tHead.rows[0].cells].slice(1);
  const headers = head.map((cell) => cell.textContent.trim());

  // --- compressed data of the page, unpacked when it is first used ------------------------------------------

  const packed = new Map();
  const unpack = (id) => {
    if (!packed.has(id)) {
      const bytes = Uint8Array.from(atob(byId(id).textContent), (character) => character.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      packed.set(id, new Response(stream).text());
    }
    return packed.get(id);
  };
  const split = new Map();
  const lines = async (id) => {
    if (!split.has(id)) split.set(id, (await unpack(id)).split("\n"));
    return split.get(id);
  };
  let drawn;
  const pictures = () => (drawn ??= read("pictures"));

  // --- small parts --------------------------------------------------------------------------------------------

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const say = (text) => { byId("status").textContent = text; };
  const percent = (value) => (100 * value).toFixed(1);
  const plain = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const seconds = (value) => value == null ? "—" : value === 0 ? "0" : value < 0.001 ? "<0.001"
    : value < 0.995 ? String(Number(value.toPrecision(2))) : value.toFixed(1);
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  // the value if it is the same for all seeds, else all values
  const common = (records, read) => [...new Set(records.map((record) => plain(read(record))))].join("; ");

  const table = (caption, names, rows) => {
    const heading = make("tr", {}, ...names.map((name) => make("th", { scope: "col", textContent: name })));
    const body = rows.map((row) => make("tr", {}, ...row.map((cell, i) =>
      make(i ? "td" : "th", i ? {} : { scope: "row" }, cell))));
    const drawn = make("table", {}, make("caption", { textContent: caption }),
      make("thead", {}, heading), make("tbody", {}, ...body));
    const box = make("div", { className: "scroll", tabIndex: 0 }, drawn);
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", caption);
    return box;
  };
  const list = (title, pairs) => make("div", {}, make("h3", { textContent: title }), make("dl", {},
    ...pairs.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })])));
  const key = (text) => make("code", { textContent: text });

  // --- the details of a row -----------------------------------------------------------------------------------

  const seeds = (records) => table("Seeds", ["seed", "mean %", "students %", "record", "artifact"],
    records.map((record) => [String(record.seed), percent(mean(record.accuracies)),
      record.accuracies.map(percent).join(", "), key(record.key), key(record.artifact)]));

  const phases = ["prepare", "teacher", "distill", "bookkeeping", "tune", "evaluate"];
  const by = (values, text) =>
    Object.entries(values).map(([name, value]) => `${name} ${text(value)}`).join(", ") || "—";
  const costs = (records) => table("Costs",
    ["seed", ...phases.map((phase) => `${phase} s`), "prepare s (by prerequisite)", "cold", "peak MiB (by phase)",
      "device", "alone on it"],
    records.map(({ seed, cost }) => [String(seed), ...phases.map((phase) => seconds(cost[`${phase}_s`])),
      by(cost.prerequisites_s, seconds), cost.cold.join(", ") || "—",
      by(cost.peak_memory, (bytes) => Math.round(bytes / 2 ** 20)),
      `${cost.device}, ${cost.cpus} cpu${cost.gpus ? `, ${cost.gpus} gpu` : ""}`, cost.exclusive ? "yes" : "no"]));

  const config = (records) => {
    const own = Object.keys(records[0].hyperparameters).map((name) =>
      [name, common(records, (record) => record.hyperparameters[name] ?? "—")]);
    return list("Hyper-parameters", own.length ? own : [["none", "the method has none"]]);
  };
  const training = (records) => {
    const names = Object.keys(records[0].training).filter((name) => name !== "holdout_scores");
    const values = names.map((name) => [name.replaceAll("_", " "), common(records, (r) => r.training[name])]);
    return list("Students", [["protocol", common(records, (r) => `${r.protocol}, version ${r.protocol_version}`)],
      ["network", common(records, (r) => r.eval_arch)], ...values]);
  };
  const provenance = (records) => {
    const names = [...new Set(records.flatMap((record) => Object.keys(record.versions)))];
    return list("Provenance", [
      ["data set", common(records, (r) => `${r.dataset}, ${r.n_classes} classes, ${r.image_shape.join("×")}`)],
      ["fingerprint", common(records, (r) => r.dataset_fingerprint)],
      ["method", common(records, (r) => `${r.method}, version ${r.method_version}`)],
      ["stored", common(records, (r) => `${r.storage.floats.toLocaleString("en")} floats`
        + (r.storage.bytes_uint8 == null ? "" : `, pixels as bytes: ${r.storage.bytes_uint8.toLocaleString("en")} bytes`)
        + (r.storage.teacher_bytes ? `; teacher: ${r.storage.teacher_bytes.toLocaleString("en")} bytes` : ""))],
      ["diverged", common(records, (r) => `${r.metrics.diverged} students`)],
      ...names.map((name) => [name, common(records, (r) => r.versions[name] ?? "—")]),
    ]);
  };
  const reproduce = (command) => {
    const button = make("button", { type: "button", textContent: "Copy" });
    const text = make("pre", { tabIndex: 0, textContent: command });
    text.setAttribute("role", "group");
    text.setAttribute("aria-label", "Commands to reproduce this row");
    button.addEventListener("click", async () => {
      getSelection().selectAllChildren(text); // stays selected, to be copied by hand
      await navigator.clipboard?.writeText(command).then(() => say("Copied."), () => say("Selected: copy it."));
    });
    return make("div", {}, make("h3", { textContent: "Reproduce" }), text, button);
  };
  const picture = (records, label) => {
    const [{ artifact, seed }] = records;
    const png = pictures()[artifact];
    return png ? [make("div", {}, make("h3", { textContent: `What seed ${seed} decodes to` }),
      make("img", { src: `data:image/png;base64,${png}`, alt: `Images of ${label}, a row for each class` }))] : [];
  };

  const detail = async (index) => {
    const [described, recorded] = await Promise.all([lines("details"), lines("records")]);
    const { label, records: held, command } = JSON.parse(described[index]);
    const records = held.map((line) => JSON.parse(recorded[line]));
    const pairs = make("div", { className: "pairs" }, config(records), training(records), provenance(records));
    const numbers = make("div", {}, seeds(records), make("br"), costs(records));
    const beside = make("div", { className: "beside" }, numbers, ...picture(records, label));
    return make("div", { className: "inside" }, beside, pairs, reproduce(command));
  };

  // --- the leaderboard ----------------------------------------------------------------------------------------

  const rows = read("rows").map((cells, index) => [index, ...cells]);
  const escape = DataTable.util.escapeHtml;
  // the hyper-parameters of a method are less prominent than its name; lines may break after each
  const method = (name) => escape(name).replace(/[,=_]/g, "$&<wbr>").replace(/\[.*\]/, '<span class="variant">$&</span>');
  const columns = head.map((cell, i) => {
    const numeric = cell.classList.contains("number");
    return {
      cellType: i ? "td" : "th",
      createdCell: (made) => { if (!i) made.scope = "row"; },
      className: numeric ? "number" : "",
      type: numeric ? "num" : "string",
      orderSequence: numeric ? ["desc", "asc"] : ["asc", "desc"],
      // the library reads text for its search as HTML, so it is escaped like text that is shown
      render: numeric ? (data, kind) => data[kind === "sort" || kind === "type" ? 1 : 0]
        : (data, kind) => kind === "filter" || (kind === "display" && i) ? escape(data)
          : kind === "display" ? method(data) : data,
    };
  });
  const opener = {
    orderable: false,
    searchable: false,
    render: (index, kind, row) => kind !== "display" ? index
      : `<button type="button" class="opener" aria-expanded="false" aria-label="Details of `
        + `${escape([row[1], `ipc ${row[2][0]}`, row[1 + headers.indexOf("evaluated on")]].join(", "))}"></button>`,
  };
  const board = new DataTable("#board", {
    data: rows,
    columns: [opener, ...columns],
    order: [[1 + headers.indexOf("accuracy %"), "desc"]],
    orderMulti: true,
    autoWidth: false,
    deferRender: true,
    pageLength: 25,
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

  // --- filters and downloads ----------------------------------------------------------------------------------

  const form = document.querySelector(".filters");
  form.hidden = false;
  const text = (cell) => (Array.isArray(cell) ? cell[0] : cell);
  for (const select of form.querySelectorAll("select")) {
    const column = 1 + Number(select.dataset.column);
    const cells = [...new Map(rows.map((row) => [text(row[column]), row[column]])).values()];
    cells.sort((one, other) => Array.isArray(one) ? one[1] - other[1] : one.localeCompare(other, "en", { numeric: true }));
    select.append(new Option("all", ""), ...cells.map((cell) => new Option(text(cell), `=${text(cell)}`)));
    select.addEventListener("change", () => {
      const wanted = select.value.slice(1);
      const test = select.value ? (cell) => cell === wanted : null;
      board.column(column).search.fixed("chosen", test).draw();
    });
  }
  byId("search").addEventListener("input", (event) => board.search(event.target.value).draw());
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => {
    board.columns().every(function () { this.search.fixed("chosen", null); });
    board.search("").draw();
  });
  board.on("draw", () => {
    const shown = board.page.info().recordsDisplay;
    say(`${shown} ${shown === 1 ? "row" : "rows"}`);
  });

  for (const button of document.querySelectorAll("[data-download]")) {
    button.addEventListener("click", async () => {
      const file = new Blob([await unpack(button.dataset.download)], { type: "text/plain" });
      const link = make("a", { href: URL.createObjectURL(file), download: button.dataset.name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
})();
