// The server's routes, its token, and its errors.

import { size } from "./format.js";

let token = "";
/** Kept in memory alone. */
export function useToken(text) { token = text; }
export const hasToken = () => token !== "";

/** A response other than 2xx, or none at all (status 0). */
export class RequestError extends Error {
  constructor(status, message, seconds = 0) {
    super(message);
    this.status = status;
    this.seconds = seconds;
  }
  /** Whether the same request may be answered soon. */
  get later() { return this.status === 503 || this.status === 429; }
}

let maxBytes = Infinity;

/** The model's description: model, version, classes, coverage, ood_threshold, has_maps, has_card, max_bytes. */
export async function model() {
  const description = await ask("api/model", {});
  maxBytes = description.max_bytes;
  return description;
}

/** The model card's page as text. */
export const card = async () => (await request("model-card", {})).text();

/**
 * Classifies one slice of a file. The file's name stays here.
 * @param {File} file
 * @param {{number: number|null, axis: string|null}} wanted The slice from 0, null for the middle one; and the view of a
 *   volume, null for the one that was scanned.
 * @param {AbortSignal} signal
 */
export async function slice(file, wanted, signal) {
  // A server that stops reading in the middle cannot say why.
  if (file.size > maxBytes) {
    throw new RequestError(413, `A file must have at most ${size(maxBytes)} on this server. Received: ${size(file.size)}.`);
  }
  const query = new URLSearchParams();
  if (wanted.number !== null) query.set("slice", wanted.number);
  if (wanted.axis !== null) query.set("axis", wanted.axis);
  const prediction = await ask(`api/slices?${query}`, {
    method: "POST", body: file, signal, headers: { "Content-Type": "application/octet-stream" },
  });
  prediction.image = address_of(prediction.image);
  prediction.map = prediction.map && address_of(prediction.map);
  return prediction;
}

/** Frees the memory of a prediction's images. */
export function free(prediction) {
  URL.revokeObjectURL(prediction.image);
  if (prediction.map) URL.revokeObjectURL(prediction.map);
}

async function ask(address, options) {
  const response = await request(address, options);
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError(0, "The server's response was cut off. Try again.");
  }
}

async function request(address, options) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  let response;
  try {
    response = await fetch(address, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError(0, "The server cannot be reached, or the file can no longer be read. Try again.");
  }
  if (response.ok) return response;
  throw new RequestError(response.status, await reason(response), seconds(response));
}

async function reason(response) {
  try {
    const { error } = await response.json();
    if (typeof error === "string" && error) return error;
  } catch { /* Something between here and the server answered. */ }
  return `The server answered with status ${response.status}.`;
}

function seconds(response) {
  const given = Number.parseFloat(response.headers.get("Retry-After"));
  return Number.isFinite(given) ? Math.min(Math.max(given, 0.5), 60) : 2;
}

function address_of(base64) {
  const text = atob(base64);
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
}
