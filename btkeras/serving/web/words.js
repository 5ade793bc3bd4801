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
export const title = (answer) => pretty(answer.answer);

/** What kind of answer it is: class, uncertain or refused. */
export const kind = (answer) => (answer.classes.includes(answer.answer) ? "class" : answer.answer);

/** The answer in one line, for lists and screen readers. */
export function line(answer) {
  const best = `${pretty(answer.label)} ${percent(answer.probabilities[answer.label])}`;
  if (kind(answer) === "class") return best;
  return kind(answer) === "refused" ? title(answer) : `${title(answer)}, most probable: ${best}`;
}

/** The set in words, or null if it is not known. */
export function setWords(answer) {
  if (answer.set === null) return null;
  return answer.set.length ? answer.set.map(pretty).join(", ") : "Nothing is probable enough";
}

/** Bytes for people. */
export const size = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
