// Texts for numbers, classes and predictions.

/** @param {string} name A class as the model calls it: no_tumor. */
export const pretty = (name) => capital(name.replaceAll("_", " "));

/** @param {string} text */
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** A probability in percent, on one line; never 0 or 100, which no model can know. */
export function percent(probability) {
  if (probability < 0.0005) return "<\u00a00.1\u00a0%";
  if (probability >= 0.9995) return ">\u00a099.9\u00a0%";
  return `${(100 * probability).toFixed(1)}\u00a0%`;
}

/** Why a decision is no class, as a sentence: its classes and probabilities written as everywhere here. */
export function sentence(reason, prediction) {
  const named = prediction.classes.reduce((text, name) => text.replaceAll(name, pretty(name)), reason);
  return capital(named.replace(/\b[01]\.(\d{3,})\b/g, (number, digits) =>
    digits.length === 3 ? percent(Number(number)) : `${(100 * number).toFixed(digits.length - 2)}\u00a0%`));
}

/** The decision as it is shown: a class, Uncertain or Rejected. */
export const title = (prediction) => pretty(prediction.decision);

/** The decision's kind: class, uncertain or rejected. */
export const kind = (prediction) => (prediction.classes.includes(prediction.decision) ? "class" : prediction.decision);

const best = (prediction) => `${pretty(prediction.label)} ${percent(prediction.probabilities[prediction.label])}`;

/** The prediction in short, for the list. */
export function brief(prediction) {
  const text = { class: best(prediction), uncertain: `${title(prediction)} (${best(prediction)})`, rejected: title(prediction) }[kind(prediction)];
  return prediction.slices > 1 ? `${prediction.slice + 1} / ${prediction.slices}: ${text}` : text;
}

/** The prediction in a sentence, for screen readers. */
export function spoken(prediction) {
  if (kind(prediction) === "class") return best(prediction);
  const likely = kind(prediction) === "uncertain" ? `, most probable: ${best(prediction)}` : "";
  return `${title(prediction)}${likely}. ${prediction.reasons.map((reason) => sentence(reason, prediction)).join(". ")}`;
}

/** The prediction set, or null if the model was not calibrated. */
export function formatSet(prediction) {
  if (prediction.set === null) return null;
  return prediction.set.length ? prediction.set.map(pretty).join(", ") : "No class is probable enough";
}

/** Bytes for people. */
export const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
