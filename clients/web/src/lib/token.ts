// The token of this tab. It comes in the address's fragment, which browsers send to nobody, and is kept for as long as the tab lives.

const KEEP = "ccr.token";

/** Take a token out of the address (`#token=…`), so that it is neither seen nor in the history. */
export function takeFromAddress(): void {
  const given = /^#token=([^&]+)/.exec(location.hash)?.[1];
  if (given === undefined) return;
  keep(decodeURIComponent(given));
  history.replaceState(null, "", location.pathname + "#/");
}

export function token(): string {
  return sessionStorage.getItem(KEEP) ?? "";
}

export function keep(given: string): void {
  sessionStorage.setItem(KEEP, given.trim());
}

export function forget(): void {
  sessionStorage.removeItem(KEEP);
}
