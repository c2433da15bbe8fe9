// Figures of a few names over time, as bars that stand on each other. Pure.

export interface Part { name: string; value: number }
export interface Bar { at: number; total: number; parts: Part[] }
export const OTHERS = "all others";

/**
 * `lines`: [time as RFC 3339, name, value]. Bars from `from` to `to`, `step` apart, in milliseconds; of the names, the `most` greatest are
 * told apart. Returns these names, greatest first, and the bars, each with its parts in that order.
 */
export function stacked(lines: readonly (readonly [string, string, number])[], from: number, to: number, step: number, most: number): { names: string[]; bars: Bar[] } {
  const sums = new Map<string, number>();
  for (const [, name, value] of lines) sums.set(name, (sums.get(name) ?? 0) + value);
  const ranked = [...sums].filter(([, value]) => value > 0).sort((one, other) => other[1] - one[1]).map(([name]) => name);
  const named = ranked.length > most + 1 ? ranked.slice(0, most) : ranked;
  const names = ranked.length > named.length ? [...named, OTHERS] : named;
  const at = new Map<number, Map<string, number>>();
  for (const [time, name, value] of lines) {
    const begins = Math.floor((Date.parse(time) - from) / step) * step + from;
    const key = named.includes(name) ? name : OTHERS;
    const bar = at.get(begins) ?? new Map<string, number>();
    at.set(begins, bar.set(key, (bar.get(key) ?? 0) + value));
  }
  const bars: Bar[] = [];
  for (let begins = from; begins < to; begins += step) {
    const parts = names.map((name) => ({ name, value: at.get(begins)?.get(name) ?? 0 }));
    bars.push({ at: begins, total: parts.reduce((sum, one) => sum + one.value, 0), parts });
  }
  return { names, bars };
}
