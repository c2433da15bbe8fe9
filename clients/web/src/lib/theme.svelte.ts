// Light or dark: as the system says, unless somebody chose.

type Choice = "" | "light" | "dark";
const KEEP = "ccr.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

class Theme {
  choice = $state<Choice>((localStorage.getItem(KEEP) ?? "") as Choice);
  #systemIsDark = $state(system.matches);
  isDark = $derived(this.choice ? this.choice === "dark" : this.#systemIsDark);

  constructor() {
    system.addEventListener("change", () => (this.#systemIsDark = system.matches));
    this.#apply();
  }

  toggle(): void {
    this.choice = this.isDark ? "light" : "dark";
    localStorage.setItem(KEEP, this.choice);
    this.#apply();
  }

  #apply(): void {
    if (this.choice) document.documentElement.dataset.theme = this.choice;
    else delete document.documentElement.dataset.theme;
  }
}

export const theme = new Theme();

const colours = new Map<string, string>(); // to ask the style sheet makes the browser lay out what has changed so far

/** A colour of the style sheet. */
export function colour(name: string): string {
  const key = `${name} ${theme.isDark}`;
  const known = colours.get(key) ?? getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  colours.set(key, known);
  return known;
}
