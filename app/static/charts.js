// The charts: what each is made of, drawn by Plotly. Each has a caption that says in words what it shows, and its
// numbers as a table, so the drawing itself is hidden from screen readers.
import { MEASURES, amount, capital, clock, element, fixed, percent, plain, span, time } from "./words.js";

const LINES = ["--line-1", "--line-2", "--line-3", "--line-4", "--line-5", "--line-6"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const short = (signal) => signal.replace(/^(feature|field):/, "");
const escaped = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const narrow = () => matchMedia("(max-width: 30rem)").matches;
const newest = (values) => values?.findLast((value) => value !== null && value !== undefined);

function line(name, x, y, place, more = {}) {
  return { name: escaped(name), x, y, place, mode: x.length === 1 ? "markers" : "lines", connectgaps: true, width: 2, ...more };
}

function quality({ history, measure }) {
  const q = history.quality, b = history.baselines, x = history.time;
  const lines = [
    ["model, latest outcomes", q.rolling, 0, { width: 3 }],
    ["base rate", b.rolling_base_rate, 1],
    ["last label", b.rolling_last_label, 4],
    ["frozen copy, since frozen", q.frozen, 3],
    ["model, since frozen", q.since_frozen, 2],
  ].filter(([, group]) => group?.[measure]?.some((value) => value !== null));
  const better = MEASURES[measure]?.better;
  return {
    title: capital(plain(measure)),
    lines: lines.map(([name, group, place, more]) => line(name, x, group[measure], place, more)),
    says: `${better ? `${capital(better)} is better: ` : ""}${lines.map(([name, group]) => `${name} ${fixed(newest(group[measure]))}`).join("; ")}.`,
    axis: { tickformat: "~g" }, format: fixed, when: time,
  };
}

function drift({ history, alarms, report }) {
  const ranked = Object.entries(history.drift).map(([signal, values]) => [signal, values, Math.max(...values.map((v) => v ?? 0))]);
  ranked.sort((a, b) => b[2] - a[2]);
  const shown = ranked.slice(0, narrow() ? 4 : 6), from = history.time[0], others = Object.keys(report?.drift ?? {}).length - shown.length;
  const fired = alarms.filter((alarm) => alarm.time_ms >= from);
  const lines = shown.map(([signal, values], i) => line(short(signal), history.time, values, i));
  if (fired.length)
    lines.push({
      name: "alarm", x: fired.map((a) => a.time_ms), y: fired.map(() => 1), place: 1, mode: "markers", symbol: "x", size: 11,
      colour: "--bad", text: fired.map((a) => escaped(a.text)), hovertemplate: "%{text}<extra>alarm</extra>",
    });
  const nearest = Object.entries(report?.drift ?? {}).sort((a, b) => b[1] - a[1])[0];
  const last = fired.at(-1);
  return {
    title: "Share of its alarm threshold that each signal has reached",
    lines,
    says:
      (nearest ? `Nearest now: ${short(nearest[0])} at ${percent(nearest[1], 0)}. ` : "") +
      (last ? `${fired.length} alarm${fired.length > 1 ? "s" : ""} in this span; the last, ${time(last.time_ms)}: ${last.text.replace(/\.?$/, ".")} ` : "No alarm in this span. ") +
      (others > 0 ? `${others} more signals are watched.` : ""),
    axis: { tickformat: ".0%", range: [0, Math.min(2, Math.max(1.1, ...shown.map(([, , most]) => most * 1.05)))] }, level: 1, format: (v) => percent(v, 0), when: time,
  };
}

function calibration({ report }) {
  const bins = report?.calibration ?? [];
  if (!bins.length) return { title: "Reliability of the probabilities", lines: [], says: "Only for probabilities." };
  const most = Math.max(...bins.map((bin) => bin[0]));
  const off = bins.reduce((a, b) => (Math.abs(b[2] - b[1]) * b[0] > Math.abs(a[2] - a[1]) * a[0] ? b : a));
  return {
    title: "Reliability of the probabilities",
    lines: [
      { name: "perfect", x: [0, 1], y: [0, 1], place: 4, mode: "lines", dash: "dot", width: 1.5, hoverinfo: "skip" },
      {
        name: "model", x: bins.map((b) => b[1]), y: bins.map((b) => b[2]), place: 0, mode: "lines+markers", width: 2,
        size: bins.map((b) => 6 + 12 * Math.sqrt(b[0] / most)), text: bins.map((b) => `${b[0]} predictions`),
        hovertemplate: "predicted %{x:.1%}, came %{y:.1%}<br>%{text}<extra></extra>",
      },
    ],
    says: `Expected calibration error ${fixed(report.calibration_error)}. Furthest off: of ${amount(off[0])} predictions of about ${percent(off[1], 0)}, ${percent(off[2], 0)} came true.`,
    axis: { range: [-0.03, 1.03], tickformat: ".0%", title: { text: "came true" } },
    across: { type: "linear", range: [-0.03, 1.03], tickformat: ".0%", title: { text: "predicted" } },
    table: [["predicted", "came true", "predictions"], bins.map((b) => [percent(b[1]), percent(b[2]), amount(b[0])])],
    legend: false,
  };
}

function delay({ history }) {
  const d = history.label_delay, hours = (values) => values.map((v) => (v === null ? null : v / 3600));
  const names = { p50: "half", p90: "90 %", p99: "99 %" };
  const shown = Object.keys(names).filter((name) => d[name]);
  return {
    title: "How long outcomes take, hours",
    lines: shown.map((name, i) => line(names[name], history.time, hours(d[name]), [0, 2, 3][i])),
    says: shown.map((name) => `${names[name]} within ${span(newest(d[name]))}`).join("; ") + (shown.length ? "." : ""),
    axis: { rangemode: "tozero" }, format: (v) => `${fixed(v, 2)} h`, when: time, small: true,
  };
}

function throughput({ history }) {
  const y = history.events_per_second;
  return {
    title: "Events per second", lines: [line("events per second", history.wall, y, 0)], says: `Now ${amount(newest(y))}.`,
    axis: { rangemode: "tozero" }, format: amount, when: clock, small: true, legend: false,
  };
}

function lag({ history }) {
  return {
    title: "Records not processed yet",
    lines: [line("not read", history.wall, history.lag, 1), line("not learned", history.wall, history.model_lag, 0)],
    says: `Not read: ${amount(newest(history.lag))}; not learned: ${amount(newest(history.model_lag))}.`,
    axis: { rangemode: "tozero" }, format: amount, when: clock, small: true,
  };
}

const CHARTS = { quality, drift, calibration, delay, throughput, lag };
const drawn = new Map(); // figure -> its parts
let state = null;

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const parts = drawn.get(entry.target);
    parts.seen = entry.isIntersecting;
    if (parts.seen && parts.due) draw(entry.target, parts);
  }
}, { rootMargin: "200px" });

for (const figure of document.querySelectorAll("figure[data-chart]")) {
  const caption = element("figcaption"), plot = element("div", { class: "plot", "aria-hidden": "true" });
  const table = element("table"), scroll = element("div", { class: "scroll tall", tabindex: "0", role: "region" }, table);
  const details = element("details", {}, element("summary", {}, "Numbers"), scroll);
  figure.append(caption, plot, details);
  drawn.set(figure, { caption, plot, table, details, seen: false, due: false });
  details.addEventListener("toggle", () => tabulate(figure, drawn.get(figure)));
  watcher.observe(figure);
}
for (const query of ["(prefers-color-scheme: dark)", "(max-width: 30rem)"])
  matchMedia(query).addEventListener("change", () => state && show(state));
addEventListener("load", () => state && show(state)); // Plotly has come

/** Draw what is in sight from this state; the rest when it comes into sight. */
export function show(current) {
  state = current;
  for (const [figure, parts] of drawn) {
    const chart = CHARTS[figure.dataset.chart](state);
    parts.chart = chart;
    parts.due = true;
    const empty = !chart.lines.some((l) => l.y.some((v) => v !== null && v !== undefined));
    const says = empty && figure.dataset.chart !== "calibration" ? "Nothing to show yet." : chart.says;
    if (parts.says !== says) {
      parts.says = says;
      parts.caption.replaceChildren(element("b", {}, `${chart.title}. `), says);
      parts.table.replaceChildren(element("caption", {}, chart.title), element("thead"), element("tbody"));
      parts.details.firstChild.textContent = `Numbers: ${chart.title}`;
      parts.table.parentElement.setAttribute("aria-label", chart.title);
    }
    figure.classList.toggle("empty", empty);
    parts.details.hidden = empty;
    tabulate(figure, parts);
    if (parts.seen && !empty) draw(figure, parts);
  }
}

function draw(figure, parts) {
  if (!globalThis.Plotly || !parts.chart || figure.classList.contains("empty")) return;
  const { chart, plot } = parts, ink = colour("--ink"), phone = narrow();
  const legend = chart.legend !== false && chart.lines.length > 1;
  plot.style.height = `${(chart.small ? 190 : 250) + (phone && legend ? 20 * chart.lines.length : 0)}px`;
  const traces = chart.lines.map(({ name, x, y, place, mode, connectgaps, width, dash, symbol, size, text, hovertemplate, hoverinfo, colour: own }) => ({
    type: "scatter", name, x, y, mode, connectgaps, text, hovertemplate, hoverinfo,
    line: { color: colour(own ?? LINES[place]), width, dash: dash ?? DASHES[place] },
    marker: { color: colour(own ?? LINES[place]), size: size ?? 7, symbol, line: { width: symbol ? 0 : 1, color: colour("--card") } },
  }));
  const grid = { gridcolor: colour("--grid"), zerolinecolor: colour("--rule"), linecolor: colour("--rule"), fixedrange: true, automargin: true };
  const level = chart.level === undefined ? [] : [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: chart.level, y1: chart.level, line: { color: colour("--bad"), width: 1.5, dash: "dash" } }];
  const layout = {
    margin: { l: 8, r: 8, t: 6, b: 8 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: false,
    font: { family: "system-ui, sans-serif", size: 12, color: ink }, hovermode: chart.across ? "closest" : "x unified",
    hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--rule"), font: { color: ink } },
    showlegend: legend,
    legend: { orientation: "h", x: 0, y: phone ? -0.25 : 1, yanchor: phone ? "top" : "bottom", font: { size: 12 } },
    xaxis: { type: "date", nticks: phone ? 4 : 8, ...grid, ...chart.across }, yaxis: { nticks: 6, ...grid, ...chart.axis }, shapes: level,
  };
  Plotly.react(plot, traces, layout, { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: false });
  parts.due = false;
}

/** The numbers of the chart, where somebody has opened them: at most fifteen rows, the newest first. */
function tabulate(figure, parts) {
  if (!parts.details.open || !parts.chart) return;
  const [head, rows] = parts.chart.table ?? sampled(parts.chart);
  parts.table.tHead.replaceChildren(element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name))));
  parts.table.tBodies[0].replaceChildren(
    ...rows.map((row) => element("tr", {}, ...row.map((cell, i) => element(i ? "td" : "th", i ? {} : { scope: "row" }, cell)))),
  );
}

function sampled({ lines, format, when }) {
  const series = lines.filter((l) => l.mode !== "markers" || l.x.length === lines[0].x.length), x = series[0]?.x ?? [];
  const step = Math.max(1, Math.ceil(x.length / 15)), rows = [];
  for (let i = x.length - 1; i >= 0; i -= step) rows.push([when(x[i]), ...series.map((l) => format(l.y[i]))]);
  return [["time", ...series.map((l) => l.name.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&"))], rows];
}
