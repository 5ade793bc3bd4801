// A slice under its map, and both enlarged.

import { byId, make } from "./dom.js";
import { pretty } from "./format.js";

/**
 * Image and map, of one size, on top of each other.
 * @param {string} name The file's.
 */
export function stack(prediction, name) {
  const which = prediction.slices > 1 ? `Slice ${prediction.slice + 1} of ${prediction.slices} of ${name}` : `Slice ${name}`;
  return [
    make("img", { class: "image", src: prediction.image, alt: `${which}, ${prediction.width} by ${prediction.height} pixels` }),
    prediction.map && make("img", { class: "map", src: prediction.map, alt: `Map of what speaks for ${pretty(prediction.label)}` }),
  ].filter(Boolean);
}

/** Shows it as large as the window. */
export function enlarge(prediction, name) {
  const dialog = byId("large");
  byId("large-shown").hidden = !prediction.map;
  byId("large-stage").replaceChildren(...stack(prediction, name));
  dialog.showModal();
}

/** One slider for all slices, so that they can be compared; and a button that takes the map away and back. */
export function mapBar() {
  const slider = byId("opacity");
  const toggles = [byId("shown"), byId("large-shown")];
  let on = true;
  const update = (shown) => {
    on = shown;
    for (const toggle of toggles) toggle.setAttribute("aria-pressed", String(on));
    document.documentElement.style.setProperty("--map", on ? String(slider.value / 100) : "0");
    byId("opacity-value").textContent = on ? `${slider.value} %` : "off";
    slider.setAttribute("aria-valuetext", `${slider.value} percent${on ? "" : ", off"}`);
  };
  slider.addEventListener("input", () => update(true));
  for (const toggle of toggles) toggle.addEventListener("click", () => update(!on));
  update(true);
  byId("large").addEventListener("click", (event) => {
    // The dialog's own area is what lies around its content.
    if (event.target === event.currentTarget) event.currentTarget.close();
  });
  byId("large").addEventListener("close", () => byId("large-stage").replaceChildren());
}
