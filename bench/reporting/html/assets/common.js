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
