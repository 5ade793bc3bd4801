// One file: its card, its predictions, and the slice of it that is shown.

import * as api from "./api.js";
import { byId, make, say, shortName } from "./dom.js";
import { predictionNodes } from "./prediction.js";
import { enlarge, stack } from "./viewer.js";
import { brief, capital, kind, size, spoken } from "./format.js";

// Images kept for each file of many slices; the texts of all are.
const KEPT = 24;
// While someone moves through the slices, only where they stop is asked for.
const PAUSE = 120;
const AXES = ["axial", "coronal", "sagittal"];
const FIRST = { number: null, axis: null };
let numbers = 0;

export class Item {
  /**
   * @param {File} file
   * @param {{add: Function}} queue
   * @param {{changed: (item: Item) => void, remove: (item: Item) => void}} owner
   */
  constructor(file, queue, owner) {
    this.id = `slice-${(numbers += 1)}`;
    this.file = file;
    this.name = file.name || "pasted image";
    this.queue = queue;
    this.owner = owner;
    this.state = "waiting";
    this.predictions = new Map();
    this.wanted = FIRST;
    this.shown = null;
    this.error = null;
    this.final = false;
    this.abort = new AbortController();
    this.build();
    this.ask(FIRST, false);
  }

  get result() {
    return { name: this.name, error: this.error, predictions: [...this.predictions.values()].sort(inOrder) };
  }

  /** In one line. */
  get summary() {
    if (this.error) return "Not classified";
    return { waiting: "Waiting", working: "Reading…", busy: "Server busy, waiting" }[this.state] ?? brief(this.shown);
  }

  /** The text for screen readers when it is done. */
  get spoken() {
    const { slice, slices } = this.shown;
    return `${this.name}${slices > 1 ? `, slice ${slice + 1}` : ""}: ${spoken(this.shown)}`;
  }

  build() {
    this.stage = make("div", { class: "stage" });
    this.caption = make("p", { class: "stage-caption" });
    this.larger = make("button", { type: "button", class: "on-dark", hidden: true, "aria-label": `Enlarge ${this.name}`,
      onclick: () => enlarge(this.shown, this.name) }, "Enlarge");
    this.stepper = make("div", { class: "stepper", role: "group", "aria-label": "Slice of the file", hidden: true });
    this.body = make("div", { class: "findings" });
    const title = make("h3", { id: `${this.id}-title`, tabindex: "-1" }, shortName(this.name));
    const remove = make("button", { type: "button", class: "quiet small", "aria-label": `Remove ${this.name}`,
      onclick: () => this.owner.remove(this) }, "Remove");
    this.card = make("article", { class: "card", id: this.id, "aria-labelledby": title.id },
      make("div", { class: "view" }, this.stage,
        make("div", { class: "stage-foot" }, this.caption, this.larger), this.stepper),
      make("div", { class: "card-words" }, make("div", { class: "card-head" }, title, remove), this.body));
    this.draw();
  }

  /** Asks the server for a slice, unless its prediction is there. */
  ask(wanted, first) {
    this.wanted = wanted;
    const known = this.predictions.get(key(wanted.axis, wanted.number));
    if (known?.image) {
      this.take(known, false);
      return;
    }
    const { signal } = this.abort;
    this.queue.add({
      gone: () => signal.aborted || this.wanted !== wanted,
      run: async () => {
        this.enter("working");
        const prediction = await api.slice(this.file, wanted, signal);
        if (signal.aborted) api.free(prediction);
        else this.receive(prediction, wanted);
      },
      busy: () => this.enter("busy"),
      failed: (error) => this.fail(error),
    }, first);
  }

  enter(state) {
    this.state = state;
    this.draw();
    this.owner.changed(this);
  }

  receive(prediction, asked) {
    const place = key(prediction.axis, prediction.slice);
    if (this.predictions.has(place)) forget(this.predictions.get(place));
    // The latest last, for the oldest are forgotten first.
    this.predictions.delete(place);
    this.predictions.set(place, prediction);
    const imaged = [...this.predictions.values()].filter((one) => one.image && one !== prediction && one !== this.shown);
    for (const old of imaged.slice(0, Math.max(0, imaged.length - KEPT))) forget(old);
    if (this.wanted === asked) this.take(prediction, true);
  }

  take(prediction, tell) {
    this.error = null;
    this.shown = prediction;
    this.wanted = { number: prediction.slice, axis: prediction.axis };
    this.state = "done";
    this.draw();
    this.owner.changed(this);
    if (tell) say(this.spoken);
  }

  fail(error) {
    this.error = error.message;
    // A file that is refused for what it is would be refused again.
    this.final = [400, 413, 415].includes(error.status);
    this.state = "failed";
    this.draw();
    this.owner.changed(this);
    say(`${this.name}: not classified. ${error.message}`);
  }

  remove() {
    this.abort.abort();
    clearTimeout(this.timer);
    this.predictions.forEach(forget);
    this.card.remove();
  }

  draw() {
    const working = ["waiting", "working", "busy"].includes(this.state);
    this.card.setAttribute("aria-busy", String(working));
    this.card.classList.toggle("bare", this.error !== null && !this.shown);
    this.card.classList.toggle("slight", this.shown !== null && this.shown.slices === 1 && kind(this.shown) === "rejected");
    this.drawStage();
    if (this.error) this.body.replaceChildren(...this.problem());
    else if (this.shown) this.body.replaceChildren(...predictionNodes(this.shown));
    else this.body.replaceChildren(make("p", { class: "pending" }, this.summary));
  }

  drawStage() {
    const prediction = this.error ? null : this.shown;
    const drawn = prediction ? stack(prediction, this.name) : [make("p", { class: "stage-text" }, this.error ? "No image" : this.summary)];
    this.stage.replaceChildren(...drawn);
    this.larger.hidden = !prediction;
    this.caption.textContent = prediction
      ? [prediction.format, `${prediction.width} × ${prediction.height}`].join(" · ")
      : size(this.file.size);
    if (this.shown && this.shown.slices > 1) this.drawStepper();
  }

  drawStepper() {
    if (!this.slider) this.buildStepper();
    if (this.axes) this.axes.value = this.shown.axis;
    this.slider.max = String(this.shown.slices);
    this.showPlace(this.wanted.number ?? this.shown.slice);
  }

  buildStepper() {
    const step = (by) => () => this.step(Number(this.slider.value) - 1 + by);
    this.slider = make("input", { type: "range", min: "1", max: "1", "aria-label": `Slice of ${this.name}`, oninput: step(0) });
    this.place = make("span", { class: "place", "aria-hidden": "true" });
    if (this.shown.axis) {
      const options = AXES.map((axis) => make("option", { value: axis }, capital(axis)));
      this.axes = make("select", { class: "on-dark", "aria-label": `View of ${this.name}`, onchange: () => this.turn() }, ...options);
    }
    const button = (label, text, by) => make("button", { type: "button", class: "on-dark", "aria-label": label, onclick: step(by) }, text);
    this.stepper.append(...[this.axes, button("Previous slice", "‹", -1), this.slider, button("Next slice", "›", 1), this.place].filter(Boolean));
    this.stepper.hidden = false;
  }

  showPlace(number) {
    const { slices } = this.shown;
    this.slider.value = String(number + 1);
    this.slider.setAttribute("aria-valuetext", `${number + 1} of ${slices}`);
    this.place.textContent = `${number + 1} / ${slices}`;
  }

  step(number) {
    const within = Math.min(Math.max(number, 0), this.shown.slices - 1);
    this.showPlace(within);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask({ number: within, axis: this.shown.axis }, true), PAUSE);
  }

  /** Another view of the volume, from its middle. */
  turn() {
    clearTimeout(this.timer);
    this.ask({ number: null, axis: this.axes.value }, true);
  }

  problem() {
    const again = make("button", { type: "button", class: "quiet", onclick: () => {
      this.error = null;
      this.enter("waiting");
      this.ask(this.wanted, true);
      byId(`${this.id}-title`).focus();
    } }, "Try again");
    return [
      make("div", { class: "prediction error" }, make("p", { class: "prediction-title" }, "Not classified")),
      make("p", { class: "reason" }, this.error),
      ...(this.final ? [] : [again]),
    ];
  }
}

const key = (axis, number) => `${axis ?? ""} ${number}`;

function inOrder(one, other) {
  return (one.axis ?? "").localeCompare(other.axis ?? "") || one.slice - other.slice;
}

function forget(prediction) {
  if (!prediction.image) return;
  api.free(prediction);
  prediction.image = prediction.map = null;
}
