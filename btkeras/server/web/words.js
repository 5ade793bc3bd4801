// Numbers and classes in words.

/** @param {string} name A class as the model calls it: no_tumor. */
export const pretty = (name) => capital(name.replaceAll("_", " "));

/** @param {string} text */
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** A probability in percent; never 0 or 100, which no model can know. */
export function percent(probability) {
  if (probability < 0.0005) return "< 0.1 %";
  if (probability >= 0.9995) return "> 99.9 %";
  return `${(100 * probability).toFixed(1)} %`;
}

/** The answer as it is shown: a class, Uncertain or Refused. */
export const title = (answer) => pretty(answer.decision);

/** What kind of answer it is: class, uncertain or refused. */
export const kind = (answer) => (answer.classes.includes(answer.decision) ? "class" : answer.decision);

const best = (answer) => `${pretty(answer.label)} ${percent(answer.probabilities[answer.label])}`;

/** The answer in few words, for the list. */
export function brief(answer) {
  const words = { class: best(answer), uncertain: `${title(answer)} (${best(answer)})`, refused: title(answer) }[kind(answer)];
  return answer.slices > 1 ? `${answer.slice + 1} / ${answer.slices}: ${words}` : words;
}

/** The answer in a sentence, for screen readers. */
export function spoken(answer) {
  if (kind(answer) === "class") return best(answer);
  const likely = kind(answer) === "uncertain" ? `, most probable: ${best(answer)}` : "";
  return `${title(answer)}${likely}. ${answer.reasons.map(capital).join(". ")}`;
}

/** The set in words, or null if it is not known. */
export function setWords(answer) {
  if (answer.set === null) return null;
  return answer.set.length ? answer.set.map(pretty).join(", ") : "No class is probable enough";
}

/** Bytes for people. */
export const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
