// What is known of one slice, in words, bars and numbers.

import { make } from "./dom.js";
import { capital, kind, percent, pretty, setWords, title } from "./words.js";

/** @returns {Node[]} */
export function findings(answer) {
  return [headline(answer), alone(answer), reasons(answer), kind(answer) === "rejected" ? folded(answer) : evidence(answer)].filter(Boolean);
}

function headline(answer) {
  const best = percent(answer.probabilities[answer.label]);
  const kindOf = kind(answer);
  return make("div", { class: `answer ${kindOf}` },
    make("p", { class: "answer-title" }, title(answer)),
    kindOf === "class" ? make("p", { class: "answer-number" }, best) : null,
    kindOf === "uncertain" ? make("p", { class: "answer-number" }, `most probable: ${pretty(answer.label)}, ${best}`) : null);
}

function alone(answer) {
  if (answer.slices === 1) return null;
  return make("p", { class: "fine" }, `Slice ${answer.slice + 1} alone: it says nothing of the other ${answer.slices - 1}.`);
}

function reasons(answer) {
  if (!answer.reasons.length) return null;
  return make("ul", { class: "reasons" }, ...decision.reasons.map((reason) => make("li", {}, `${capital(reason)}.`)));
}

function evidence(answer) {
  return make("div", { class: `evidence ${kind(answer)}` }, bars(answer), facts(answer));
}

function folded(answer) {
  return make("details", { class: "folded" },
    make("summary", {}, "What the model would say all the same"),
    make("p", { class: "fine" }, "A classifier gives one of its classes to whatever it is shown. This means nothing here."),
    evidence(answer));
}

function bars(answer) {
  const row = (name) => {
    const probability = answer.probabilities[name];
    const bar = make("span", { class: "bar-fill" });
    bar.style.inlineSize = `${100 * probability}%`;
    return make("tr", { class: name === answer.label ? "best" : null },
      make("th", { scope: "row" }, pretty(name)),
      make("td", { class: "bar-cell", "aria-hidden": "true" }, make("span", { class: "bar-track" }, bar)),
      make("td", { class: "number" }, percent(probability)));
  };
  return make("table", { class: "bars" }, make("caption", { class: "hidden" }, "Probabilities"),
    make("tbody", {}, ...decision.classes.map(row)));
}

function facts(answer) {
  const entries = [...setFact(answer), ...outlierFact(answer)];
  if (!entries.length) return make("p", { class: "fine" }, "This model was not calibrated: nothing says how far its probabilities can be relied on.");
  return make("dl", { class: "facts" }, ...entries);
}

function setFact(answer) {
  const words = setWords(answer);
  if (words === null) return [];
  return [make("dt", {}, "Cannot be ruled out"),
    make("dd", {}, words, make("span", { class: "fine" }, ` at ${Math.round(100 * answer.coverage)} % coverage`))];
}

function outlierFact(answer) {
  if (answer.ood_percentile === null) return [];
  const mark = make("i", { class: "scale-mark" });
  mark.style.insetInlineStart = `${answer.ood_percentile}%`;
  const limit = make("i", { class: "scale-limit" });
  limit.style.insetInlineStart = `${answer.ood_limit}%`;
  const beyond = answer.reasons.some((reason) => reason.startsWith("unlike"));
  const words = `At least as unusual as ${answer.ood_percentile.toFixed(1)} % of the validation slices`;
  return [make("dt", {}, "Unlikeness"),
    make("dd", {}, make("span", { class: "scale", "aria-hidden": "true" }, limit, mark),
      make("span", { class: "fine" }, beyond ? `${words}: beyond the mark.` : `${words}.`))];
}
