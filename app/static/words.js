// Numbers and times as people read them, and elements. Text goes in as text: whatever comes from a topic is no markup.

export const MEASURES = {
  log_loss: { name: "log loss", better: "lower" },
  roc_auc: { name: "ROC AUC", better: "higher" },
  accuracy: { name: "accuracy", better: "higher" },
  brier: { name: "Brier score", better: "lower" },
  calibration_error: { name: "calibration error", better: "lower" },
  f1: { name: "F1", better: "higher" },
  mae: { name: "mean absolute error", better: "lower" },
  rmse: { name: "root mean squared error", better: "lower" },
};
export const capital = (text) => text.replace(/^./, (first) => first.toUpperCase());
export const plain = (name) => MEASURES[name]?.name ?? name.replaceAll("_", " ");

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);
const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
export const count = (value) => (known(value) ? grouped.format(value) : "–");
export const fixed = (value, digits = 4) => (known(value) ? value.toFixed(digits) : "–");
export const percent = (value, digits = 1) => (known(value) ? `${(value * 100).toFixed(digits)}\u00a0%` : "–");

export function amount(value) {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) || size >= 10000) return count(value);
  return size >= 100 ? value.toFixed(1) : size >= 0.001 || size === 0 ? String(+value.toPrecision(4)) : value.toExponential(2);
}

export function span(seconds) {
  if (!known(seconds)) return "–";
  for (const [size, unit] of [[86400, "days"], [3600, "h"], [60, "min"]])
    if (Math.abs(seconds) >= size) return `${+(seconds / size).toFixed(1)}\u00a0${unit}`;
  return `${+seconds.toFixed(1)}\u00a0s`;
}

export const time = (ms) => (ms ? new Date(ms).toISOString().slice(0, 16).replace("T", " ") : "–");
export const clock = (ms) => (ms ? new Date(ms).toISOString().slice(11, 19) : "–");

/** An element with attributes and children; strings become text. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A number whose exact value a program can read. */
export const data = (value, shown) => (known(value) ? element("data", { value }, shown) : element("span", {}, "–"));

/** Put `text` where it is not there already, so that a screen reader hears changes only. */
export function say(id, text) {
  const place = document.getElementById(id);
  if (place.textContent !== text) place.textContent = text;
}
