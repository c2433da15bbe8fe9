// Values as words. Pure: everything a screen shows passes through here, and nothing here knows the time or the page.

import { timestampMs, durationMs, type Duration, type Timestamp } from "@bufbuild/protobuf/wkt";
import type { TokenUsage } from "../gen/ccr_rpc/v1/usage_pb";

export const NONE = "–";

/** 1234567 → "1.23 M". */
export function count(given: bigint | number): string {
  const value = Number(given);
  for (const [size, unit] of [[1e9, " G"], [1e6, " M"], [1e4, " k"]] as const) {
    if (Math.abs(value) >= size) return significant(value / (unit === " k" ? 1e3 : size)) + unit;
  }
  return Number.isInteger(value) ? String(value) : significant(value);
}

function significant(value: number): string {
  const size = Math.abs(value);
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** Requests a second. */
export function rate(perSecond: number): string {
  return perSecond >= 100 ? count(Math.round(perSecond)) : perSecond >= 10 ? perSecond.toFixed(1) : perSecond.toFixed(2);
}

/** Microseconds → "412 ms"; 0 means that nobody knows. */
export function micros(given: bigint | number): string {
  const us = Number(given);
  if (us <= 0) return NONE;
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 10_000) return `${(us / 1e3).toFixed(1)} ms`;
  if (us < 1e6) return `${Math.round(us / 1e3)} ms`;
  return us < 60e6 ? `${(us / 1e6).toFixed(us < 10e6 ? 2 : 1)} s` : span(us / 1e3);
}

/** Milliseconds → "3 min". */
export function span(ms: number): string {
  const s = Math.max(0, ms) / 1000;
  if (s < 1) return "now";
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129_600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86_400)} d`;
}

export function ago(at: Timestamp | undefined, nowMs: number): string {
  if (!at) return NONE;
  const past = nowMs - timestampMs(at);
  return past < 1500 ? "just now" : `${span(past)} ago`;
}

export function ahead(at: Timestamp | undefined, nowMs: number): string {
  return at ? `in ${span(timestampMs(at) - nowMs)}` : NONE;
}

export function lasting(given: Duration | undefined): string {
  return given ? span(durationMs(given)) : NONE;
}

/** Time of day, with the day if it is another one. */
export function clock(at: Timestamp | undefined, nowMs: number): string {
  if (!at) return NONE;
  const when = new Date(timestampMs(at));
  const time = when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  return new Date(nowMs).toDateString() === when.toDateString() ? time : `${when.toLocaleDateString()} ${time}`;
}

export function exactly(at: Timestamp | undefined): string {
  return at ? new Date(timestampMs(at)).toISOString() : "";
}

/** Millionths of a US dollar → "$1.23". */
export function usd(micro: bigint | number): string {
  const value = Number(micro) / 1e6;
  const size = Math.abs(value);
  if (size === 0) return "$0";
  if (size < 0.01) return `$${value.toFixed(4)}`;
  if (size < 1000) return `$${value.toFixed(2)}`;
  return `$${count(Math.round(value))}`;
}

export function percent(part: number, whole: number): string {
  if (whole <= 0) return NONE;
  const value = (100 * part) / whole;
  return value === 100 || value === 0 ? `${value} %` : value > 99 ? `${(Math.floor(value * 100) / 100).toFixed(2)} %` : `${value.toFixed(1)} %`;
}

export function bytes(given: bigint | number): string {
  const value = Number(given);
  return value >= 1 << 20 ? `${significant(value / 2 ** 20)} MiB` : value >= 1024 ? `${significant(value / 1024)} KiB` : `${value} B`;
}

/** All tokens that went in. */
export function input(tokens: TokenUsage | undefined): number {
  if (!tokens) return 0;
  return Number(tokens.input + tokens.cacheRead + tokens.cacheWrite5m + tokens.cacheWrite1h);
}

/** The share of the input that a prompt cache had. */
export function cacheShare(tokens: TokenUsage | undefined): string {
  return percent(Number(tokens?.cacheRead ?? 0n), input(tokens));
}

/** An enum's name as words: `CIRCUIT_STATE_HALF_OPEN` → "half-open". */
export function word(names: Record<number, string>, value: number): string {
  return (names[value] ?? "unknown").toLowerCase().replaceAll("_", "-");
}

/** JSON as one line of `key: value`. */
export function facts(json: string): string {
  try {
    const value: unknown = JSON.parse(json);
    if (typeof value !== "object" || value === null) return String(value);
    const said = (one: unknown): string => (typeof one === "object" ? JSON.stringify(one) : one === "" ? NONE : String(one).replace(/\b([0-9a-f]{12})[0-9a-f]{20,}\b/, "$1…"));
    return Object.entries(value).map(([key, one]) => `${key}: ${said(one)}`).join(", ");
  } catch {
    return json;
  }
}

/** A value beside an axis: as short as it may be. */
export function tick(value: number, format: (value: number) => string): string {
  return value === 0 ? "0" : format(value).replace(/(\.\d*?)0+(?!\d)/, "$1").replace(/\.(?!\d)/, "");
}
