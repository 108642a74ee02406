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

// --- rows side by side ---------------------------------------------------------------------------------------------

const SHOWN = ["rank", "accuracy %", "over random", "KiB", "seconds", "operations", "seeds × students"];
const compared = async (chosen) => {
  const [described, recorded] = await Promise.all([lines("details"), lines("records")]);
  const sets = chosen.map((row) => {
    const { label, records: held } = JSON.parse(described[row[0]]);
    return { row, label, records: held.map((line) => JSON.parse(recorded[line])) };
  });
  const names = [...new Set(sets.flatMap(({ records }) => Object.keys(records[0].hyperparameters)))];
  const line = (name, read) => [name, ...sets.map(read)];
  const bySeed = (records) => records.map((r) => `${r.seed}: ${percent(mean(r.accuracies))}`).join("\n");
  const curve = ({ metrics }) => (metrics?.curve ?? []).map((point) => `${Math.round(100 * point.fraction)} %: ${percent(mean(point.accuracies))}`).join("\n") || "—";
  const course = (record) => (record.snapshots ?? []).map((point) => `${Math.round(100 * point.fraction)} %: ${percent(mean(point.accuracies))}`).join("\n") || "—";
  const pieces = ({ records, label }) => {
    const png = pictures()[records[0].artifact];
    return png ? make("img", { src: `data:image/png;base64,${png}`, alt: `Images of ${label}, a row for each class` }) : "—";
  };
  const first = sets[0];
  const settings = names.map((name) => line(name, ({ records }) => common(records, (r) => r.hyperparameters[name] ?? "—")))
    .filter(([, ...values]) => new Set(values).size > 1);
  const body = [
    line("data set", ({ records }) => records[0].dataset),
    line("ipc", ({ row }) => text(row[columnOf("ipc")])),
    line("network", ({ records }) => records[0].eval_arch),
    line("protocol", ({ records }) => records[0].protocol),
    ...SHOWN.map((name) => line(name, ({ row }) => text(row[columnOf(name)]))),
    line(`points over ${first.row[METHOD]}`, ({ row }) => (100 * (value(row[columnOf("accuracy %")]) - value(first.row[columnOf("accuracy %")]))).toFixed(1)),
    line("seeds: %", ({ records }) => bySeed(records)),
    line("in the students' training", ({ records }) => curve(records[0])),
    line("in the distillation", ({ records }) => course(records[0])),
    ...settings,
    line("images", pieces),
  ];
  const drawn = table("Rows side by side", ["", ...sets.map(({ row }) => row[METHOD])], body);
  const title = make("h3", { textContent: "Compared", tabIndex: -1 });
  const note = make("p", { className: "quiet", textContent: "rank is the test: methods of one cell whose places do not overlap are told apart." });
  return make("div", { className: "inside" }, title, drawn, note);
};
