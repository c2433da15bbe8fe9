// What the page shows: one stream of it, for as long as somebody looks. Parts that no view needs are not asked for.

import { Code, ConnectError } from "@connectrpc/connect";
import { durationFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { GetConfigResponse } from "../gen/ccr_rpc/v1/config_pb";
import type { WatchRequestSchema, WatchResponse } from "../gen/ccr_rpc/v1/dashboard_pb";
import type { Event } from "../gen/ccr_rpc/v1/events_pb";
import type { ListNodesResponse } from "../gen/ccr_rpc/v1/fleet_pb";
import type { KeyStatus, ScopeBudget } from "../gen/ccr_rpc/v1/keys_pb";
import type { ProviderStatus } from "../gen/ccr_rpc/v1/providers_pb";
import type { RecordFilterSchema, StoredRecord } from "../gen/ccr_rpc/v1/records_pb";
import type { SeriesPoint, Session, Stats } from "../gen/ccr_rpc/v1/stats_pb";
import { Budgets } from "./budgets";
import { dashboard, isTokenRefused, problemOf, WITHIN } from "./control";
import { afterPaint, breather } from "./later";
import { keep, forget, token } from "./token";
import { me } from "./me.svelte";

const INTERVAL_MS = 250;
const LONG_LISTS_INTERVAL_MS = 1000; // thousands of keys, accounts and agents: to read them takes longer than to see them move
const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 8000;
const SILENT_AFTER_MS = 15_000;
const MAX_RECORDS = 1000;
const MAX_EVENTS = 300;
const NOT_KNOWN = "This token is not known here, or not any more: it may have been revoked, have ended, or belong to another relay.";
const SERIES_OF_MS = 3_600_000;

export type Link =
  | { is: "connecting" }
  | { is: "live" }
  | { is: "waiting"; why: string; untilMs: number; tries: number }
  | { is: "asleep" }
  | { is: "refused"; why: string };

/** What a view wants besides what all of them show. */
export interface Wants {
  keys?: boolean;
  sessions?: boolean;
  records?: MessageInitShape<typeof RecordFilterSchema>;
}

class Feed {
  link = $state.raw<Link>({ is: "connecting" });
  /** The page's idea of now, in milliseconds; moves once a second. */
  nowMs = $state(Date.now());
  /** When the newest message came. 0: none did. */
  heardMs = $state(0);
  /** Since when we wait for an answer, or are live. */
  sinceMs = $state(Date.now());
  stats = $state.raw<Stats>();
  providers = $state.raw<ProviderStatus[]>();
  keys = $state.raw<KeyStatus[]>();
  scopes = $state.raw<ScopeBudget[]>();
  nodes = $state.raw<ListNodesResponse>();
  config = $state.raw<GetConfigResponse>();
  events = $state.raw<Event[]>([]);
  sessions = $state.raw<Session[]>();
  /** Changed in place: `budgetsAt` is another one with each change. */
  budgets = new Budgets();
  budgetsAt = $state(0);
  /** Newest first. */
  records = $state.raw<StoredRecord[]>();
  skipped = $state(0);
  series = $state.raw<SeriesPoint[]>([]);
  /** While true, new records are not shown. */
  isPaused = $state(false);
  /** While true, somebody reads older ones: new records wait, too. */
  isReading = $state(false);
  /** Records that wait to be shown. */
  waiting = $state(0);

  #wants: Wants = {};
  #running: AbortController | undefined;
  #restarting: (() => void) | undefined;
  #held: StoredRecord[] = [];
  #isFirstOfBudgets = true;
  #lastFilter: Wants["records"];

  constructor() {
    setInterval(() => (this.nowMs = Date.now()), 1000);
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#sleep() : this.#restart()));
    addEventListener("online", () => this.link.is === "waiting" && this.#restart());
  }

  /** Begin to watch, or go on with other parts. */
  want(wants: Wants): void {
    const isNew = spelt(wants) !== spelt(this.#wants);
    if (isNew && wants.records && spelt(wants.records) !== spelt(this.#lastFilter)) {
      this.records = undefined; // what is there does not fit
      this.#held = [];
      this.waiting = 0;
      this.isReading = false;
      this.#lastFilter = wants.records;
    }
    this.#wants = wants;
    if (!isNew && this.#running !== undefined) return;
    this.#running?.abort(); // what it still tells may not fit
    this.sinceMs = Date.now();
    this.#restarting?.();
    this.#restarting = afterPaint(() => this.#restart()); // to ask for it takes longer than to show what is there
  }

  /** Try again at once. */
  retry(): void {
    this.#restart();
  }

  login(given: string): void {
    keep(given);
    this.#restart();
  }

  logout(): void {
    forget();
    this.#running?.abort();
    this.link = { is: "refused", why: "" };
  }

  resume(): void {
    this.isPaused = this.isReading = false;
    this.#show(this.#held.splice(0));
    this.waiting = 0;
  }

  /** Hold new records while somebody reads older ones. */
  read(isReading: boolean): void {
    if (isReading) this.isReading = true;
    else if (!this.isPaused) this.resume();
    else this.isReading = false;
  }

  #sleep(): void {
    this.#restarting?.();
    this.#running?.abort();
    this.#running = undefined;
    if (this.link.is !== "refused") this.link = { is: "asleep" };
  }

  #restart(): void {
    this.#restarting?.();
    if (document.hidden) return;
    this.#running?.abort();
    this.#running = new AbortController();
    void this.#follow(this.#running.signal);
  }

  async #follow(signal: AbortSignal): Promise<void> {
    if (!token()) {
      this.link = { is: "refused", why: "" };
      return;
    }
    let waitMs = FIRST_WAIT_MS;
    if (this.link.is !== "live") this.link = { is: "connecting" };
    this.sinceMs = Date.now();
    for (let tries = 1; !signal.aborted; tries += 1) {
      let why = "The control plane ended the stream.";
      try {
        await me.ask(signal);
        await this.#listen(signal, () => {
          waitMs = FIRST_WAIT_MS;
          tries = 0;
        });
      } catch (thrown) {
        if (signal.aborted) return;
        const code = ConnectError.from(thrown).code;
        if (isTokenRefused(thrown) || code === Code.PermissionDenied) {
          this.link = { is: "refused", why: isTokenRefused(thrown) ? NOT_KNOWN : problemOf(thrown) };
          return;
        }
        why = problemOf(thrown);
        if (code === Code.Unimplemented || code === Code.ResourceExhausted) waitMs = LONGEST_WAIT_MS; // sooner would only make it worse
      }
      if (signal.aborted) return;
      const forMs = waitMs * (0.75 + Math.random() / 2); // many pages must not come back at once
      this.link = { is: "waiting", why, untilMs: Date.now() + forMs, tries };
      await pause(forMs, signal);
      waitMs = Math.min(waitMs * 2, LONGEST_WAIT_MS);
    }
  }

  async #listen(signal: AbortSignal, heard: () => void): Promise<void> {
    const silent = new AbortController();
    const stop = (): void => silent.abort(new ConnectError("The control plane has fallen silent.", Code.Unavailable));
    signal.addEventListener("abort", stop);
    const doubt = (): void => {
      alarm = setTimeout(stop, WITHIN.timeoutMs); // nothing may have changed: ask whether somebody is there
      me.ask(silent.signal).then(() => {
        clearTimeout(alarm);
        if (isHeard) alarm = setTimeout(doubt, SILENT_AFTER_MS);
        else stop(); // its first message comes at once, or never
      }, stop);
    };
    let isHeard = false;
    let alarm = setTimeout(doubt, SILENT_AFTER_MS);
    try {
      this.#isFirstOfBudgets = true;
      const breathe = breather();
      for await (const message of dashboard.watch(this.#request(), { signal: silent.signal })) {
        if (signal.aborted) return;
        clearTimeout(alarm);
        alarm = setTimeout(doubt, SILENT_AFTER_MS);
        isHeard = true;
        heard();
        if (this.link.is !== "live") {
          this.link = { is: "live" };
          this.sinceMs = Date.now();
        }
        this.#take(message);
        await breathe(); // an hour of budgets comes in many messages at once
      }
    } finally {
      clearTimeout(alarm);
      signal.removeEventListener("abort", stop);
    }
  }

  #request(): MessageInitShape<typeof WatchRequestSchema> {
    return {
      interval: durationFromMs(this.#wants.keys || this.#wants.sessions ? LONG_LISTS_INTERVAL_MS : INTERVAL_MS),
      stats: true,
      providers: true,
      nodes: true,
      config: true,
      events: true,
      series: true,
      keys: this.#wants.keys ?? false,
      budgets: this.#wants.keys ?? false,
      sessions: this.#wants.sessions ?? false,
      ...(this.#wants.records ? { records: this.#wants.records } : {}),
    };
  }

  #take(message: WatchResponse): void {
    this.heardMs = Date.now();
    if (message.stats) this.stats = message.stats;
    if (message.providers) this.providers = message.providers.providers;
    if (message.keys) this.keys = message.keys.keys;
    if (message.scopes) this.scopes = message.scopes.budgets;
    if (message.nodes) this.nodes = message.nodes;
    if (message.config) this.config = message.config;
    if (message.sessions) this.sessions = message.sessions.sessions;
    if (message.events.length) this.events = newestEvents(this.events, message.events);
    if (message.budgets) {
      this.budgets.take(message.budgets, this.#isFirstOfBudgets);
      this.#isFirstOfBudgets = false;
      this.budgetsAt += 1;
    }
    if (message.series.length) this.series = joined(this.series, message.series);
    if (message.records) {
      this.skipped += Number(message.records.skipped);
      if (this.isPaused || this.isReading) {
        this.#held = [...this.#held, ...message.records.records].slice(-MAX_RECORDS);
        this.waiting = this.#unseen(this.#held).length;
      } else this.#show(message.records.records);
    }
  }

  #show(fresh: StoredRecord[]): void {
    if (fresh.length || !this.records) this.records = [...this.#unseen(fresh).reverse(), ...(this.records ?? [])].slice(0, MAX_RECORDS);
  }

  /** Those that are not shown yet: a new stream begins with some we have. */
  #unseen(fresh: StoredRecord[]): StoredRecord[] {
    const seen = new Set((this.records ?? []).slice(0, 400).map((one) => one.record?.requestId));
    return fresh.filter((one) => !seen.has(one.record?.requestId));
  }
}

function newestEvents(known: Event[], fresh: Event[]): Event[] {
  const byId = new Map([...known, ...fresh].map((one) => [one.id, one]));
  return [...byId.values()].sort((one, other) => Number(other.id - one.id)).slice(0, MAX_EVENTS);
}

/** Points by time; a newer one of the same time takes the older one's place. */
function joined(known: SeriesPoint[], fresh: SeriesPoint[]): SeriesPoint[] {
  const at = (one: SeriesPoint): number => (one.at ? timestampMs(one.at) : 0);
  const byTime = new Map([...known, ...fresh].map((one) => [at(one), one]));
  const points = [...byTime.values()].sort((one, other) => at(one) - at(other));
  const newest = points.at(-1);
  return newest ? points.filter((one) => at(one) > at(newest) - SERIES_OF_MS) : [];
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(done, Math.max(0, ms));
    signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
  });
}

function spelt(value: unknown): string {
  return JSON.stringify(value, (_, one: unknown) => (typeof one === "bigint" ? one.toString() : one)) ?? "";
}

export const feed = new Feed();
