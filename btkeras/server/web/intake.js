// How slices come in: dropped, chosen, pasted; files, folders, several at once.

import { byId } from "./dom.js";

// Taken from a folder, where others lie too: by ending, or by first bytes where the ending says nothing.
// A single file is always sent, and the server says what it is.
const ENDINGS = /\.(a?png|jpe?g?|jfif|bmp|dib|tiff?|webp|gif|dcm|dicom|ima|nii|nii\.gz)$/i;
const HIDDEN = /(^|\/)(\.|__MACOSX\/)/;
const DISC_INDEX = /(^|\/)DICOMDIR$/i;
const BEGINNINGS = /^(\x89PNG|\xff\xd8\xff|GIF8|II[*+]\0|MM\0[*+]|RIFF[^]{4}WEBP|[^]{128}DICM|[^]{344}n\+1\0|[^]{4}n\+2\0)/;
const HEAD = 348;
// The commonest names of masks; `btkeras predict` knows more of them.
const MASKS = /([_-](d?seg|segm|segmentation|masks?|labels?|gt)\d?\.[^/]*|(^|\/)(masks?|labels(Tr|Ts)|segmentations?)\/[^/]*)$/i;
const natural = new Intl.Collator(undefined, { numeric: true });

/** @param {(files: File[], skipped: string[]) => void} take */
export function intake(take) {
  const files = byId("files");
  const folders = byId("folders");
  byId("drop").addEventListener("click", () => files.click());
  byId("folder").addEventListener("click", () => folders.click());
  files.addEventListener("change", () => {
    take([...files.files], []);
    files.value = "";
  });
  folders.addEventListener("change", () => {
    sieve([...folders.files].map((file) => [file.webkitRelativePath || file.name, file]), take);
    folders.value = "";
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    if (pasted.length) {
      event.preventDefault();
      take(pasted, []);
    }
  });
  dropping(take);
}

function dropping(take) {
  // Entering a child comes before leaving its parent.
  let depth = 0;
  const show = (change) => {
    depth = change ? Math.max(0, depth + change) : 0;
    document.body.classList.toggle("dropping", depth > 0);
  };
  const ours = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => { if (ours(event)) { event.preventDefault(); show(1); } });
  addEventListener("dragleave", (event) => { if (ours(event)) show(-1); });
  addEventListener("dragover", (event) => {
    if (!ours(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  addEventListener("drop", async (event) => {
    if (!ours(event)) return;
    event.preventDefault();
    show(0);
    // Both are gone after the first await.
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const plain = [...event.dataTransfer.files];
    if (!entries.some((entry) => entry.isDirectory)) take(plain, []);
    else sieve(await walk(entries), take);
  });
}

/** Pairs of path and file, in their order as people count; hidden files do not count. */
async function sieve(pairs, take) {
  const seen = pairs.filter(([path]) => !HIDDEN.test(path)).sort((a, b) => natural.compare(a[0], b[0]));
  const wanted = await Promise.all(seen.map(([path, file]) => holdsSlices(path, file)));
  const skipped = seen.filter((_, place) => !wanted[place]).map(([path]) => path.replace(/^\//, ""));
  take(seen.filter((_, place) => wanted[place]).map(([, file]) => file), skipped);
}

async function holdsSlices(path, file) {
  if (MASKS.test(path) || DISC_INDEX.test(path)) return false;
  if (ENDINGS.test(path)) return true;
  // Where a file cannot be read, the server's message is not to be had either.
  const bytes = await file.slice(0, HEAD).arrayBuffer().catch(() => new ArrayBuffer(0));
  return BEGINNINGS.test(String.fromCharCode(...new Uint8Array(bytes)));
}

async function walk(entries) {
  const found = [];
  for (const entry of entries) {
    if (entry.isFile) {
      const file = await new Promise((done) => { entry.file(done, () => done(null)); });
      if (file) found.push([entry.fullPath, file]);
    } else {
      found.push(...(await walk(await children(entry))));
    }
  }
  return found;
}

async function children(folder) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    // A hundred at a time, until there are none.
    const some = await new Promise((done) => { reader.readEntries(done, () => done([])); });
    if (!some.length) return found;
    found.push(...some);
  }
}
