// The list of all slices beside the cards, and how far they are.

import { byId, make, shortName } from "./dom.js";
import { kind } from "./format.js";

const OPEN = new Set(["waiting", "working", "busy"]);

export class List {
  constructor() {
    this.rows = new Map();
  }

  add(item) {
    const text = make("span", { class: "row-text" });
    const link = make("a", { href: `#${item.id}`, onclick: (event) => {
      event.preventDefault();
      const title = byId(`${item.id}-title`);
      item.card.scrollIntoView({ block: "start" });
      title.focus({ preventScroll: true });
    } }, make("i", { class: "dot", "aria-hidden": "true" }), shortName(item.name), text);
    const row = make("li", {}, link);
    this.rows.set(item, { row, text });
    byId("list").append(row);
    this.change(item);
  }

  change(item) {
    const found = this.rows.get(item);
    if (!found) return;
    found.text.textContent = item.summary;
    found.row.dataset.kind = item.error ? "error" : OPEN.has(item.state) || !item.shown ? "open" : kind(item.shown);
  }

  remove(item) {
    this.rows.get(item)?.row.remove();
    this.rows.delete(item);
  }

  /** Shows how many are done. */
  tally(items) {
    const done = items.filter((item) => !OPEN.has(item.state)).length;
    byId("work").hidden = !items.length;
    byId("tally").textContent = `${done} of ${items.length} done`;
    const progress = byId("progress");
    progress.max = Math.max(1, items.length);
    progress.value = done;
    progress.classList.toggle("over", done === items.length);
    for (const id of ["csv", "json", "copy"]) byId(id).disabled = !done;
  }
}
