// The page: keeps the sections of the state as they come, and puts each where it belongs. No build step, no framework.
import { show } from "./charts.js";
import { follow } from "./follow.js";
import { MEASURES, amount, capital, clock, count, data, element, fixed, percent, plain, say, span, time } from "./words.js";

const ICONS = { good: "✓", watch: "!", bad: "✕", unknown: "?" };
const STATES = { good: "fine", watch: "look", bad: "trouble", unknown: "unknown" };
const NONE = { time: [], wall: [], version: [], events_per_second: [], lag: [], model_lag: [], coverage: [], dead_letters: [], calibration_error: [], quality: {}, baselines: {}, label_delay: {}, drift: {} };
const MOST = 2000; // points kept in a tab that is open for days

const state = { about: {}, report: null, verdict: null, incidents: [], alarms: [], recent: [], worker: {}, history: NONE, measure: "" };
const place = (id) => document.getElementById(id);

/** Add the rows of `more` to the columns of `history`; a column that is new has nothing before them. */
function append(history, more, length = history.time.length, added = more.time.length) {
  for (const name of new Set([...Object.keys(history), ...Object.keys(more)])) {
    const column = more[name] ?? history[name];
    if (Array.isArray(column)) {
      history[name] ??= Array(length).fill(null);
      history[name].push(...(more[name] ?? Array(added).fill(null)));
      if (history[name].length > MOST) history[name].splice(0, history[name].length - MOST);
    } else append((history[name] ??= {}), more[name] ?? {}, length, added);
  }
}

function apply(kind, sections) {
  const { point, ...whole } = sections;
  Object.assign(state, whole);
  if (point) append(state.history, point);
  if (state.about.build !== document.body.dataset.build && mayReload()) return location.reload();
  for (const [name, render] of Object.entries(RENDER)) if (kind === "state" || name in sections) render();
  if (kind === "state" || "history" in sections || point || "alarms" in sections) show(state);
}

/** The worker has another page now; but behind one address may be workers of two builds, so not again and again. */
function mayReload() {
  const last = Number(sessionStorage.getItem("reloaded"));
  sessionStorage.setItem("reloaded", Date.now());
  return Date.now() - last > 60000;
}

function about() {
  document.title = `${state.about.pipeline} – Headwater`;
  say("pipeline", state.about.pipeline);
  say("description", state.about.description);
}

function verdict() {
  const { state: tone, words, why, cause, checks } = state.verdict, section = place("verdict");
  section.dataset.state = tone;
  section.querySelector(".icon").textContent = ICONS[tone];
  say("words", words);
  say("why", why);
  place("cause").hidden = !cause;
  say("cause", cause ? `Look first at: the ${cause}.` : "");
  place("checks").replaceChildren(...checks.map((check) => element("li", { "data-state": check.state },
    element("b", {}, element("span", { class: "icon", "aria-hidden": "true" }, ICONS[check.state]), capital(check.part),
      element("span", { class: "state" }, STATES[check.state])), check.text)));
}

function pairs(id, entries) {
  place(id).replaceChildren(...entries.map(([name, ...shown]) => element("div", {}, element("dt", {}, name), element("dd", {}, ...shown))));
}

function report() {
  const r = state.report;
  asOf();
  if (!r) return;
  measures(r);
  qualityTable(r);
  const d = r.label_delay;
  pairs("label-numbers", [
    ["got an outcome in time", data(r.coverage < 0 ? null : r.coverage, percent(r.coverage))],
    ...[["half come within", "p50"], ["90 % within", "p90"], ["99 % within", "p99"]].filter(([, p]) => p in d).map(([name, p]) => [name, data(d[p], span(d[p]))]),
    ["outcomes so far", data(r.examples, count(r.examples))],
  ]);
  const dead = Object.entries(r.dead_letters).filter(([, share]) => share > 0).map(([reason, share]) => `${plain(reason)} ${percent(share)}`);
  pairs("pipeline-numbers", [
    ["events per second", data(r.events_per_second, amount(r.events_per_second))],
    ["not read yet", data(Object.values(r.lag).reduce((a, b) => a + b, 0), count(Object.values(r.lag).reduce((a, b) => a + b, 0)))],
    ["not learned yet", data(r.model_lag, count(r.model_lag))],
    ["newest version that predicted", data(r.version, count(r.version))],
    ["unusable records", dead.join(", ") || "none"],
    ["workers", Object.entries(r.units).map(([worker, units]) => `${worker} (${units.length})`).join(", ") || "–"],
  ]);
  fields();
}

function asOf() {
  const r = state.report;
  if (!r) return say("asof", "");
  const age = (Date.now() - r.wall_ms) / 1000;
  const old = age > 60 ? ` That was ${span(age)} ago; since then nothing has changed, or no worker watches.` : "";
  say("asof", `Report of ${clock(r.wall_ms)}, events up to ${time(r.time_ms)}, version ${count(r.version)}.${old}`);
}
setInterval(asOf, 10000);

/** Which measure the chart shows: those of the rolling window, the loss first. */
function measures(r) {
  const rolling = r.quality.rolling ?? {}, names = Object.keys(MEASURES).filter((name) => name in rolling);
  names.push(...Object.keys(rolling).filter((name) => !(name in MEASURES) && !name.startsWith("base_rate")));
  const set = place("measures"), shown = [...set.querySelectorAll("input")].map((input) => input.value);
  if (!names.includes(state.measure)) state.measure = names[0] ?? "";
  if (shown.join() === names.join()) return;
  set.hidden = names.length < 2;
  for (const label of set.querySelectorAll("label")) label.remove();
  set.append(...names.map((name) => element("label", {}, element("input", { type: "radio", name: "measure", value: name, checked: name === state.measure }), plain(name))));
}
place("measures").addEventListener("change", (event) => {
  state.measure = event.target.value;
  show(state);
});

const ROWS = [
  ["quality", "rolling", "Model, latest outcomes", "model"], ["quality", "recent", "Model, latest span of event time", "model"], ["quality", "mature", "Model, events older than the horizon"],
  ["baselines", "rolling_base_rate", "Base rate, latest outcomes"], ["baselines", "rolling_last_label", "Last label, latest outcomes"],
  ["quality", "since_frozen", "Model, since there is a frozen copy"], ["quality", "frozen", "Frozen copy, same outcomes"],
  ["quality", "total", "Model, from the start"], ["baselines", "base_rate", "Base rate, from the start"], ["baselines", "last_label", "Last label, from the start"],
];

function qualityTable(r) {
  const rows = ROWS.filter(([group, name]) => Object.keys(r[group][name] ?? {}).length);
  const names = [...new Set(rows.flatMap(([group, name]) => Object.keys(r[group][name])))].filter((name) => name in MEASURES);
  names.sort((a, b) => Object.keys(MEASURES).indexOf(a) - Object.keys(MEASURES).indexOf(b));
  const heads = names.map((name) => element("th", { scope: "col" }, `${plain(name)} ${MEASURES[name].better === "lower" ? "↓" : "↑"}`));
  fill("quality-table", [element("th", { scope: "col" }, rows.length ? "arrow: the better way" : "no outcome yet"), ...heads],
    rows.map(([group, name, title, kind]) => element("tr", { class: kind, "data-row": name }, element("th", { scope: "row" }, title),
      ...names.map((measure) => element("td", { "data-measure": measure }, data(r[group][name][measure], fixed(r[group][name][measure])))))));
}

function fill(id, heads, rows) {
  const table = place(id);
  if (heads) table.tHead.replaceChildren(element("tr", {}, ...heads));
  table.tBodies[0].replaceChildren(...rows);
}

const FIELDS = [
  ["name", "name", (f) => f.name], ["kind", "kind", (f) => f.kind], ["state", "state", (f) => f.drifted],
  ["psi", "PSI", (f) => f.psi], ["ks", "KS", (f) => f.ks], ["mean", "mean", (f) => f.mean], ["reference", "reference", (f) => f.reference_mean],
  ["missing", "missing", (f) => f.missing], ["outside", "outside", (f) => f.outside], ["new", "new categories", (f) => f.new.length], ["n", "values", (f) => f.n],
];
let order = ["worst", -1];

/** Worst first: what stands in an alarm, then what is constant or new, then by distance from the reference. */
const badness = (f) => (f.drifted ? 4 : 0) + (f.constant ? 1 : 0) + (f.new.length ? 1 : 0) + f.missing + f.outside + f.psi;

function fields() {
  const [by, way] = order, value = FIELDS.find(([id]) => id === by)?.[2] ?? badness;
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  const sorted = [...state.report.fields].sort((a, b) => way * compare(value(a), value(b)) || badness(b) - badness(a));
  fill("fields-table", null, sorted.map((f) => {
    const odd = f.drifted ? ["bad", "✕ changed"] : f.constant ? ["watch", "! constant"] : f.new.length ? ["watch", "! new values"] : ["good", "✓ as before"];
    return element("tr", {}, element("th", { scope: "row" }, f.name), element("td", { class: "text" }, f.kind),
      element("td", { class: "text", "data-state": odd[0] }, element("span", { class: "mark" }, odd[1])),
      ...[[f.psi, fixed(f.psi, 3)], [f.ks, fixed(f.ks, 3)], [f.mean, amount(f.mean)], [f.reference_mean, amount(f.reference_mean)], [f.missing, percent(f.missing)], [f.outside, percent(f.outside)]]
        .map(([v, shown]) => element("td", {}, data(v, shown))),
      element("td", { class: "text" }, f.new.join(", ") || "–"), element("td", {}, count(f.n)));
  }));
}

function sortBy(id) {
  order = order[0] === id ? [id, -order[1]] : [id, id === "name" || id === "kind" ? 1 : -1];
  for (const head of place("fields-table").tHead.querySelectorAll("th"))
    if (head.dataset.id === id) head.setAttribute("aria-sort", order[1] > 0 ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  if (state.report) fields();
}
place("fields-table").tHead.append(element("tr", {}, ...FIELDS.map(([id, title]) => {
  const button = element("button", { type: "button" }, title);
  button.addEventListener("click", () => sortBy(id));
  return element("th", { scope: "col", "data-id": id, class: ["kind", "state", "new"].includes(id) ? "text" : undefined }, button);
})));

function value(prediction) {
  if (typeof prediction === "number") return fixed(prediction);
  const best = Object.entries(prediction).sort((a, b) => b[1] - a[1])[0];
  return best ? `${best[0]} (${percent(best[1], 0)})` : "–";
}

function recent() {
  const titles = [["id", ""], ["key", "text"], ["event time", "text"], ["prediction", ""], ["outcome", "text"], ["version", ""]];
  fill("recent-table", titles.map(([title, kind]) => element("th", { scope: "col", class: kind }, title)), state.recent.map((seen) =>
    element("tr", {}, element("th", { scope: "row" }, seen.id), element("td", { class: "text" }, seen.key), element("td", { class: "text" }, time(seen.time_ms)),
      element("td", {}, value(seen.prediction)), element("td", { class: "text" }, seen.outcome === null ? "waiting" : typeof seen.outcome === "number" ? amount(seen.outcome) : String(seen.outcome)),
      element("td", {}, count(seen.version)))));
}

function incident(found) {
  const tone = found.state === "open" ? "bad" : "unknown", moved = Object.keys(found.after).filter((name) => name in found.before);
  const where = found.cause === "unknown" ? "the cause is not known" : `look at the ${found.cause}`;
  return element("article", { class: "incident", "data-state": tone, "data-id": found.id },
    element("h3", {}, element("span", { class: "tag" }, found.state), ` ${time(found.opened_ms)}: ${where}`),
    element("p", {}, found.why),
    moved.length ? element("p", { class: "quiet" }, `Since ${time(found.since_ms)}: ${moved.map((name) => `${plain(name)} ${amount(found.before[name])} → ${amount(found.after[name])}`).join("; ")}.`) : null,
    element("ul", {}, ...found.alarms.slice(0, 5).map((alarm) => element("li", {}, `${time(alarm.time_ms)} ${alarm.text}`)),
      found.alarms.length > 5 ? element("li", {}, `and ${found.alarms.length - 5} more alarms`) : null,
      ...found.slices.slice(0, 3).map(([name, m]) => element("li", {}, `${name}: ${Object.entries(m).map(([k, v]) => `${plain(k)} ${amount(v)}`).join(", ")}`)),
      ...found.events.slice(0, 5).map((text) => element("li", {}, text))));
}

function incidents() {
  const open = state.incidents.filter((i) => i.state === "open"), closed = state.incidents.filter((i) => i.state !== "open");
  const unfolded = place("incident-list").querySelector("details")?.open;
  place("incident-list").replaceChildren(
    ...(open.length ? open.map(incident) : [element("p", { class: "quiet" }, "None is open.")]),
    ...(closed.length ? [element("details", { open: unfolded }, element("summary", {}, `Closed: ${closed.length}`), ...closed.map(incident))] : []),
  );
}

function worker() {
  const samples = state.worker, lags = Object.entries(samples).filter(([name]) => name.startsWith("consumer_lag")).map(([, v]) => v);
  pairs("worker-numbers", [
    ["model version", data(samples.model_version, count(samples.model_version))],
    ["not learned yet", data(samples.model_lag, count(samples.model_lag))],
    ["newest snapshot", data(samples.snapshot_version, count(samples.snapshot_version))],
    ["not read yet", data(lags.length ? lags.reduce((a, b) => a + b, 0) : null, count(lags.reduce((a, b) => a + b, 0)))],
    ["predictions made", data(samples.predictions_total, count(samples.predictions_total))],
    ["learning", samples.learning_frozen ? "frozen" : "on"],
  ]);
  const rows = Object.entries(state.worker).map(([name, v]) => element("tr", { "data-sample": name }, element("th", { scope: "row" }, name), element("td", {}, data(v, amount(v)))));
  fill("worker-table", ["metric", "value"].map((title) => element("th", { scope: "col" }, title)), rows);
}

const RENDER = { about, verdict, report, recent, incidents, worker };

follow("/events", apply, (how, seconds) => {
  const shown = place("connection");
  shown.dataset.state = how;
  document.body.classList.toggle("stale", how !== "live");
  say("connection", how === "live" ? "Live" : `Disconnected; trying again in ${seconds} s`);
});
