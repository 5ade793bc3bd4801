// Results as CSV, JSON and for the clipboard. The first columns are those of `btkeras predict --csv`, which counts slices from 0.

/**
 * @typedef {{name: string, error: string|null, predictions: object[]}} Result
 * @param {Result[]} results
 */
export function rows(results) {
  return results.flatMap(({ name, error, predictions }) => [
    ...predictions.map((prediction) => ({ path: prediction.slices > 1 ? `${name}#${prediction.slice}` : name, error: null, ...plain(prediction) })),
    ...(error ? [{ path: name, error }] : []),
  ]);
}

function plain(prediction) {
  const { label, probabilities, decision, set, ood_percentile, reasons, slice, slices, axis, model, version } = prediction;
  return { label, probabilities, decision, set, ood_percentile, reasons, slice, slices, axis, model, version };
}

/** @param {Result[]} results */
export const json = (results) => `${JSON.stringify(rows(results), null, 2)}\n`;

/**
 * @param {Result[]} results
 * @param {string[]} classes
 * @param {string} separator
 */
export function table(results, classes, separator = ",") {
  const head = ["path", "label", ...classes, "error", "decision", "set", "ood_percentile", "reasons", "slice", "slices", "axis", "model", "version"];
  const lines = rows(results).map((row) => [
    row.path, row.label, ...classes.map((name) => row.probabilities?.[name]), row.error, row.decision, row.set?.join(";"),
    row.ood_percentile, row.reasons?.join(";"), row.slice, row.slices, row.axis, row.model, row.version,
  ]);
  return [head, ...lines].map((line) => line.map((cell) => quoted(cell, separator)).join(separator) + "\r\n").join("");
}

function quoted(cell, separator) {
  let text = String(cell ?? "");
  // A file's name that a spreadsheet would take for a formula.
  if (typeof cell === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /["\r\n\t]/.test(text) || text.includes(separator) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Has the browser save a text. */
export function save(name, type, content) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  // The browser reads it after this event.
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
