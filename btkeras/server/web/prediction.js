// The prediction for one slice as text, bars and numbers.

import { make } from "./dom.js";
import { kind, percent, pretty, formatSet, sentence, title } from "./format.js";

/** @returns {Node[]} */
export function predictionNodes(prediction) {
  return [headline(prediction), alone(prediction), reasons(prediction), kind(prediction) === "rejected" ? folded(prediction) : evidence(prediction)].filter(Boolean);
}

function headline(prediction) {
  const best = percent(prediction.probabilities[prediction.label]);
  const kindOf = kind(prediction);
  return make("div", { class: `prediction ${kindOf}` },
    make("p", { class: "prediction-title" }, title(prediction)),
    kindOf === "class" ? make("p", { class: "prediction-number" }, best) : null,
    kindOf === "uncertain" ? make("p", { class: "prediction-number" }, `most probable: ${pretty(prediction.label)}, ${best}`) : null);
}

function alone(prediction) {
  if (prediction.slices === 1) return null;
  return make("p", { class: "fine" }, `Slice ${prediction.slice + 1} alone: it says nothing of the other ${prediction.slices - 1}.`);
}

function reasons(prediction) {
  if (!prediction.reasons.length) return null;
  return make("ul", { class: "reasons" }, ...prediction.reasons.map((reason) => make("li", {}, `${sentence(reason, prediction)}.`)));
}

function evidence(prediction) {
  return make("div", { class: `evidence ${kind(prediction)}` }, bars(prediction), details(prediction));
}

function folded(prediction) {
  return make("details", { class: "folded" },
    make("summary", {}, "The model's probabilities all the same"),
    make("p", { class: "fine" }, "A classifier gives one of its classes to whatever it is shown. This means nothing here."),
    evidence(prediction));
}

function bars(prediction) {
  const row = (name) => {
    const probability = prediction.probabilities[name];
    const bar = make("span", { class: "bar-fill" });
    bar.style.inlineSize = `${100 * probability}%`;
    return make("tr", { class: name === prediction.label ? "best" : null },
      make("th", { scope: "row" }, pretty(name)),
      make("td", { class: "bar-cell", "aria-hidden": "true" }, make("span", { class: "bar-track" }, bar)),
      make("td", { class: "number" }, percent(probability)));
  };
  return make("table", { class: "bars" }, make("caption", { class: "hidden" }, "Probabilities"),
    make("tbody", {}, ...prediction.classes.map(row)));
}

function details(prediction) {
  const entries = [...setFact(prediction), ...oodFact(prediction)];
  if (!entries.length) return make("p", { class: "fine" }, "This model was not calibrated: its probabilities may be too high or too low.");
  return make("dl", { class: "details" }, ...entries);
}

function setFact(prediction) {
  const text = formatSet(prediction);
  if (text === null) return [];
  return [make("dt", {}, "Cannot be ruled out"),
    make("dd", {}, text, make("span", { class: "fine" }, ` at ${Math.round(100 * prediction.coverage)} % coverage`))];
}

function oodFact(prediction) {
  if (prediction.ood_percentile === null) return [];
  const mark = make("i", { class: "scale-mark" });
  mark.style.insetInlineStart = `${prediction.ood_percentile}%`;
  const limit = make("i", { class: "scale-limit" });
  limit.style.insetInlineStart = `${prediction.ood_threshold}%`;
  const beyond = prediction.reasons.some((reason) => reason.startsWith("unlike"));
  const text = `At least as unlike the training slices as ${prediction.ood_percentile.toFixed(1)} % of the calibration slices`;
  return [make("dt", {}, "OOD percentile"),
    make("dd", {}, make("span", { class: "scale", "aria-hidden": "true" }, limit, mark),
      make("span", { class: "fine" }, beyond ? `${text}: above the threshold.` : `${text}.`))];
}
