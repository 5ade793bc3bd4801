// Elements in one line. Texts are texts and never markup.

/**
 * Makes an element.
 * @param {string} tag
 * @param {object} properties Attributes by name; `class`, `on…` listeners; null and false are left out, true is "".
 * @param {...(Node|string|null|undefined)} children
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** @param {string} id */
export const byId = (id) => document.getElementById(id);

let said = 0;
/** Tells screen readers; what follows at once replaces it. */
export function say(text) {
  clearTimeout(said);
  said = setTimeout(() => { byId("said").textContent = text; }, 150);
}

/**
 * A file's name that is cut in its middle where there is no room, so that its ending stays.
 * @param {string} name
 */
export function shortName(name) {
  const cut = name.length > 24 ? name.length - 12 : name.length;
  return make("span", { class: "name", title: name },
    make("span", { class: "name-head" }, name.slice(0, cut)),
    cut < name.length ? make("span", { class: "name-tail" }, name.slice(cut)) : null);
}
