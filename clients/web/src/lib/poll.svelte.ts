// Answers of calls that no stream brings: asked at once, again every few seconds while somebody looks, and when asked to.

import { untrack } from "svelte";
import { problemOf } from "./control";
import { feed } from "./feed.svelte";
import { afterPaint } from "./later";

export class Polled<T> {
  value = $state.raw<T>();
  problem = $state("");
  isAsking = $state(false);
  #asks: (signal: AbortSignal) => Promise<T>;
  #running: AbortController | undefined;
  #isDue = $state(false); // the view that asks is seen first

  /** Call it while a component is made. `asks` is called again whenever what it reads changes; every 0 ms: not by time. */
  constructor(asks: (signal: AbortSignal) => Promise<T>, everyMs = 0) {
    this.#asks = asks;
    $effect(() => afterPaint(() => (this.#isDue = true)));
    $effect(() => {
      if (!this.#isDue || feed.link.is !== "live") return;
      this.again();
      const timer = everyMs ? setInterval(() => untrack(() => this.again()), everyMs) : 0;
      return () => {
        clearInterval(timer);
        this.#running?.abort();
      };
    });
  }

  again(): void {
    this.#running?.abort();
    const running = new AbortController();
    this.#running = running;
    const answer = this.#asks(running.signal); // what it reads is tracked up to its first await
    void untrack(() => this.#settle(answer, running.signal));
  }

  async #settle(answer: Promise<T>, signal: AbortSignal): Promise<void> {
    this.isAsking = true;
    try {
      this.value = await answer;
      this.problem = "";
    } catch (thrown) {
      if (!signal.aborted) this.problem = problemOf(thrown);
    } finally {
      if (!signal.aborted) this.isAsking = false;
    }
  }
}
