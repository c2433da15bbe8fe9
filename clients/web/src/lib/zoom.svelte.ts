// The span of time that charts show, in seconds; undefined: all there is. It is in the address, so that it can be sent to somebody.

import { place } from "./place.svelte";

const SHORTEST_S = 4;

class Zoom {
  range = $derived.by((): [number, number] | undefined => {
    const [from = NaN, to = NaN] = (place.query.get("zoom") ?? "").split("-").map(Number);
    return from > 0 && to > from ? [from, to] : undefined;
  });

  set(range: readonly [number, number] | undefined): void {
    place.set("zoom", range ? `${Math.floor(range[0])}-${Math.ceil(range[1])}` : "");
  }

  /** Show a part of what is shown, or more of it, around its middle; `all` is what there is. */
  by(factor: number, all: readonly [number, number]): void {
    const [from, to] = this.range ?? all;
    if (!this.range && factor < 1) return this.#within(to - Math.max(SHORTEST_S, (to - from) * factor), to, all); // the newest part
    const half = Math.max(SHORTEST_S, (to - from) * factor) / 2;
    this.#within((from + to) / 2 - half, (from + to) / 2 + half, all);
  }

  /** Step to the side by a part of what is shown. */
  step(part: number, all: readonly [number, number]): void {
    const [from, to] = this.range ?? all;
    const far = (to - from) * part;
    const kept = Math.max(all[0] - from, Math.min(all[1] - to, far));
    this.#within(from + kept, to + kept, all);
  }

  #within(from: number, to: number, all: readonly [number, number]): void {
    const kept = [Math.max(all[0], from), Math.min(all[1], to)] as const;
    this.set(kept[0] <= all[0] && kept[1] >= all[1] ? undefined : kept);
  }
}

export const zoom = new Zoom();
