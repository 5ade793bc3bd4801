// How slices come in: dropped, chosen, pasted; files, folders, several at once.

import { byId } from "./dom.js";

// Taken from a folder, where others lie too; a single file is always sent, and the server says what it is.
const ENDINGS = /(^|\/)[^./][^./]*$|\.(png|jpe?g|dcm|dicom|ima|nii|nii\.gz)$/i;
const natural = new Intl.Collator(undefined, { numeric: true });

/** @param {(files: File[], skipped: number) => void} take */
export function intake(take) {
  const files = byId("files");
  const folders = byId("folders");
  byId("drop").addEventListener("click", () => files.click());
  byId("folder").addEventListener("click", () => folders.click());
  files.addEventListener("change", () => {
    take([...files.files], 0);
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
      take(pasted, 0);
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
    if (!entries.some((entry) => entry.isDirectory)) take(plain, 0);
    else sieve(await walk(entries), take);
  });
}

/** Pairs of path and file, in their order as people count. */
function sieve(pairs, take) {
  const found = pairs.filter(([path]) => ENDINGS.test(path)).sort((a, b) => natural.compare(a[0], b[0]));
  take(found.map(([, file]) => file), pairs.length - found.length);
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
