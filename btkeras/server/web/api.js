// The server's two addresses, its token, and its errors in words.

import { size } from "./words.js";

let token = "";
/** Kept in memory alone. */
export function useToken(text) { token = text; }
export const hasToken = () => token !== "";

/** An answer other than 2xx, or none at all (status 0). */
export class Refusal extends Error {
  constructor(status, message, seconds = 0) {
    super(message);
    this.status = status;
    this.seconds = seconds;
  }
  /** Whether the same request may be answered soon. */
  get later() { return this.status === 503 || this.status === 429; }
}

let mostBytes = Infinity;

/** What is known of the model: model, version, classes, coverage, ood_limit, explained, card, most_bytes. */
export async function model() {
  const facts = await ask("api/model", {});
  mostBytes = facts.most_bytes;
  return facts;
}

/** The model card's page as text. */
export const card = async () => (await request("model-card", {})).text();

/**
 * Answers one slice of a file. The file's name stays here.
 * @param {File} file
 * @param {{number: number|null, axis: string|null}} wanted The slice from 0, null for the middle one; and the view of a
 *   volume, null for the one that was scanned.
 * @param {AbortSignal} signal
 */
export async function slice(file, wanted, signal) {
  // A server that stops reading in the middle cannot say why.
  if (file.size > mostBytes) {
    throw new Refusal(413, `A file must have at most ${size(mostBytes)} on this server. Received: ${size(file.size)}.`);
  }
  const query = new URLSearchParams();
  if (wanted.number !== null) query.set("slice", wanted.number);
  if (wanted.axis !== null) query.set("axis", wanted.axis);
  const answer = await ask(`api/slices?${query}`, {
    method: "POST", body: file, signal, headers: { "Content-Type": "application/octet-stream" },
  });
  answer.image = address_of(answer.image);
  answer.map = answer.map && address_of(answer.map);
  return answer;
}

/** Frees the memory of an answer's images. */
export function free(answer) {
  URL.revokeObjectURL(answer.image);
  if (answer.map) URL.revokeObjectURL(answer.map);
}

async function ask(address, options) {
  const response = await request(address, options);
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server's answer was cut off. Try again.");
  }
}

async function request(address, options) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  let response;
  try {
    response = await fetch(address, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server cannot be reached, or the file can no longer be read. Try again.");
  }
  if (response.ok) return response;
  throw new Refusal(response.status, await reason(response), seconds(response));
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
