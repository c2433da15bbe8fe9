// A long list that is fetched page by page, as far as somebody reads.

import { problemOf } from "./control";

export interface Answer<Item> {
  items: Item[];
  /** Asks for what comes after; "": there is no more. */
  next: string;
}

export class Pages<Item> {
  items = $state.raw<Item[]>([]);
  /** Asks for the next page; "": there is none, or nothing was asked for yet. */
  next = $state("");
  problem = $state("");
  isAsking = $state(false);
  #ask: (pageToken: string, signal: AbortSignal) => Promise<Answer<Item>>;
  #running: AbortController | undefined;

  constructor(ask: (pageToken: string, signal: AbortSignal) => Promise<Answer<Item>>) {
    this.#ask = ask;
  }

  /** Forget what there is. */
  clear(): void {
    this.#running?.abort();
    this.#running = undefined;
    [this.items, this.next, this.problem, this.isAsking] = [[], "", "", false];
  }

  /** Ask for the first page. */
  begin(): Promise<void> {
    this.clear();
    return this.#page("");
  }

  /** Ask for the next page, if there is one and nobody has asked. */
  async more(): Promise<void> {
    if (this.next && !this.isAsking) await this.#page(this.next);
  }

  async #page(token: string): Promise<void> {
    const running = (this.#running = new AbortController());
    this.isAsking = true;
    try {
      const answer = await this.#ask(token, running.signal);
      if (running.signal.aborted) return; // for another list
      this.items = [...this.items, ...answer.items];
      this.next = answer.next;
      this.problem = "";
    } catch (thrown) {
      if (!running.signal.aborted) this.problem = problemOf(thrown);
    } finally {
      if (!running.signal.aborted) this.isAsking = false;
    }
  }
}
