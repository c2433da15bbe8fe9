// Work that can wait, so that it does not stand between a key and its picture.

const AT_THE_LATEST_MS = 200; // where nothing is painted, as in a window that nobody sees
const BREATH_MS = 8;

/** Do it once the page has been painted with what has changed so far. Returns what takes that back. */
export function afterPaint(work: () => void): () => void {
  const begin = (): void => {
    cancel();
    work();
  };
  const latest = setTimeout(begin, AT_THE_LATEST_MS);
  let soon: ReturnType<typeof setTimeout> | undefined;
  const frame = requestAnimationFrame(() => (soon = setTimeout(begin)));
  const cancel = (): void => {
    clearTimeout(latest);
    clearTimeout(soon);
    cancelAnimationFrame(frame);
  };
  return cancel;
}

/** Lets keys and pictures in between pieces of work: await the result before each piece. */
export function breather(): () => Promise<void> {
  let sinceMs = performance.now();
  return async () => {
    if (performance.now() - sinceMs > BREATH_MS) await new Promise((done) => setTimeout(done));
    sinceMs = performance.now();
  };
}
