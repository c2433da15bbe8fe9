// Where in the page we are: `#/providers/zai?state=open`. Every view can be linked to, and the browser's back button works.

export const VIEWS = [
  { id: "overview", title: "Overview", key: "o" },
  { id: "providers", title: "Providers", key: "p" },
  { id: "keys", title: "Keys & budgets", key: "k" },
  { id: "sessions", title: "Sessions", key: "s" },
  { id: "requests", title: "Requests", key: "r" },
  { id: "routing", title: "Routing", key: "g" },
  { id: "costs", title: "Costs", key: "c" },
  { id: "nodes", title: "Nodes", key: "n" },
  { id: "events", title: "Events", key: "e" },
  { id: "config", title: "Config", key: "f" },
] as const;

export type ViewId = (typeof VIEWS)[number]["id"];

class Place {
  view = $state<ViewId>("overview");
  /** What follows the view's name, decoded. */
  rest = $state("");
  query = $state.raw(new URLSearchParams());

  constructor() {
    this.#read();
    addEventListener("hashchange", () => this.#read());
  }

  #read(): void {
    const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?");
    const [view = "", ...rest] = path.split("/");
    this.view = VIEWS.find((one) => one.id === view)?.id ?? "overview";
    this.rest = safely(rest.join("/"));
    this.query = new URLSearchParams(query);
  }

  /** Change a part of the query without a step in the history. */
  set(name: string, value: string): void {
    const query = new URLSearchParams(this.query);
    if (value) query.set(name, value);
    else query.delete(name);
    this.query = query;
    history.replaceState(null, "", to(this.view, this.rest, Object.fromEntries(query)));
  }

  go(view: ViewId, rest = "", query: Record<string, string> = {}): void {
    const address = to(view, rest, query);
    if (address === location.hash) return;
    history.pushState(null, "", address); // not by the hash: its event may come a picture or two later
    this.#read();
  }
}

/** The address of a view. */
export function to(view: ViewId, rest = "", query: Record<string, string> = {}): string {
  const asked = new URLSearchParams(query).toString();
  return `#/${view}${rest ? "/" + rest.split("/").map(encodeURIComponent).join("/") : ""}${asked ? "?" + asked : ""}`;
}

function safely(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const place = new Place();
