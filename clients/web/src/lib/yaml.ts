// The little of the effective configuration's text that a screen needs. It is machine-made: two blanks a level, one key a line.

/** A top-level section with its name, "" if there is none. */
export function sectionOf(text: string, name: string): string {
  const lines = text.split("\n");
  const first = lines.findIndex((line) => line.startsWith(`${name}:`));
  if (first < 0) return "";
  const next = lines.findIndex((line, at) => at > first && /^[^\s#-]/.test(line));
  return lines.slice(first, next < 0 ? undefined : next).join("\n").trimEnd();
}

/** Names of routes: as given, or by position as the control plane names them. */
export function routesOf(routing: string): string[] {
  const body = sectionOf(routing.replace(/^routing:\n/, "").replaceAll(/^ {2}/gm, ""), "routes");
  const items = body.split(/^\s*- /m).slice(1);
  return items.filter((item) => /(^|\n)\s*to:/.test(item)).map((item, at) => /(?:^|\n)\s{0,4}name: (.+)/.exec(item)?.[1]?.trim() ?? `route-${at + 1}`);
}
