// The page: slices come in, wait in a queue, and become cards.

import * as api from "./api.js";
import { byId, make, say } from "./dom.js";
import { intake } from "./intake.js";
import { Item } from "./item.js";
import { List } from "./list.js";
import { Queue } from "./queue.js";
import { json, save, table } from "./results.js";
import { askToken } from "./token.js";
import { mapBar } from "./viewer.js";
import { pretty } from "./format.js";

// More would only wait in the server's queue instead of this one.
const AT_ONCE = 2;
// A folder of a whole hospital would fill the browser.
const MOST = 1000;
// Files left out that are named.
const NAMED = 5;
const AGAIN = 5000;
// With so many predictions, closing the page asks first.
const ASK_FROM = 5;

const items = [];
const list = new List();
const queue = new Queue(AT_ONCE, askToken);
let classes = [];
let saved = true;

const owner = {
  changed(item) {
    list.change(item);
    list.tally(items);
    if (item.state === "done") {
      saved = false;
      showModel(item.shown);
    }
  },
  remove(item) {
    const at = items.indexOf(item);
    drop(item);
    // The focus was in what is gone.
    const next = items[Math.min(at, items.length - 1)];
    (next ? byId(`${next.id}-title`) : byId("drop")).focus();
    say(`${item.name} removed`);
  },
};

function drop(item) {
  item.remove();
  list.remove(item);
  items.splice(items.indexOf(item), 1);
  list.tally(items);
  arrange();
}

// Without slices the page explains itself; with them it is theirs.
function arrange() {
  const empty = !items.length;
  if (empty !== document.body.classList.contains("empty")) byId("help").open = empty;
  document.body.classList.toggle("empty", empty);
  byId("bar").hidden = empty;
}

function take(files, skipped) {
  const room = files.slice(0, MOST - items.length);
  for (const file of room) {
    const item = new Item(file, queue, owner);
    items.push(item);
    byId("cards").append(item.card);
    list.add(item);
  }
  list.tally(items);
  arrange();
  const left = files.length - room.length;
  const text = [`${room.length} ${room.length === 1 ? "slice" : "slices"} added`];
  if (skipped.length) text.push(leftOut(skipped));
  if (left) text.push(`${left} left out: at most ${MOST} at a time`);
  say(text.join(", "));
  if (skipped.length || left || !files.length) note(`${text.join(", ")}.`);
}

// How many files of a folder were not sent, and the first names.
function leftOut(paths) {
  const rest = paths.length - NAMED;
  const names = paths.slice(0, NAMED).join(", ") + (rest > 0 ? ` and ${rest} more` : "");
  return `${paths.length} ${paths.length === 1 ? "file" : "files"} left out (masks, or no images): ${names}`;
}

function note(text) {
  byId("note")?.remove();
  byId("work").before(make("p", { id: "note", class: "fine" }, text));
}

// The model's name in the header; the server may have been restarted with another.
function showModel(description) {
  classes = description.classes;
  const version = description.version === null ? "" : ` · version ${description.version}`;
  const text = `${description.model}${version}`;
  if (byId("model").dataset.text === text) return;
  byId("model").dataset.text = text;
  const link = make("a", { href: "model-card", target: "_blank", rel: "noopener", onclick: openCard }, "Model card");
  byId("model").replaceChildren(make("span", { class: "model-word" }, "Model "), make("strong", {}, description.model, make("span", { class: "model-version" }, version)), ...(description.has_card ? [" · ", link] : []));
  byId("classes").textContent = ` (${classes.map(pretty).join(", ")})`;
  byId("bar-slider").hidden = !description.has_maps;
  byId("bar-text").textContent = description.has_maps
    ? "What the prediction rests on, not where a tumour is."
    : "This model has no maps of what its predictions rest on.";
}

// A link carries no token, so what it leads to is then shown here.
async function openCard(event) {
  if (!api.hasToken()) return;
  event.preventDefault();
  const page = new DOMParser().parseFromString(await api.card(), "text/html");
  byId("card-text").replaceChildren(...page.querySelector("main").childNodes);
  byId("card").showModal();
}

async function meet() {
  try {
    showModel(await api.model());
  } catch (error) {
    if (error.status === 401) {
      if (await askToken()) meet();
      else byId("model").textContent = "This server asks for a token";
      return;
    }
    byId("model").textContent = error.later ? "No model is ready yet" : error.message;
    setTimeout(meet, AGAIN);
  }
}

function results() {
  saved = true;
  return items.map((item) => item.result);
}

async function copy() {
  try {
    await navigator.clipboard.writeText(table(results(), classes, "\t"));
    say("Results copied");
    byId("copy").textContent = "Copied";
    setTimeout(() => { byId("copy").textContent = "Copy"; }, 2000);
  } catch {
    note("The browser does not let this page copy. Take CSV instead.");
  }
}

byId("csv").addEventListener("click", () => save("btkeras.csv", "text/csv", table(results(), classes)));
byId("json").addEventListener("click", () => save("btkeras.json", "application/json", json(results())));
byId("copy").addEventListener("click", copy);
// Only where the browser has one: on this machine, or over HTTPS.
byId("copy").hidden = !navigator.clipboard;
byId("clear").addEventListener("click", () => {
  [...items].forEach(drop);
  byId("note")?.remove();
  byId("drop").focus();
  say("All slices removed");
});
addEventListener("beforeunload", (event) => {
  // The predictions are nowhere else.
  if (!saved && items.filter((item) => item.shown).length >= ASK_FROM) event.preventDefault();
});
mapBar();
intake(take);
meet();
