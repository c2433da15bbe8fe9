// Changes: asked once, done, and their result shown.

import type { Role } from "../gen/ccr_rpc/v1/access_pb";
import { problemOf } from "./control";
import { me } from "./me.svelte";

export interface Act {
  title: string;
  /** What will happen, in a sentence or two. */
  text: string;
  /** What the button says. */
  verb: string;
  needs: Role;
  isDanger?: boolean;
  /** Text to show as it is, for example a diff. */
  shown?: string;
  /** Something to fill in first. */
  asks?: Field[];
  /** Returns what happened, for people. */
  run: (given: Record<string, string>) => Promise<string>;
}

export interface Field {
  name: string;
  label: string;
  kind?: "text" | "number" | "password" | "select";
  value?: string;
  options?: string[];
  min?: number;
  max?: number;
  hint?: string;
  isOptional?: boolean;
}

export interface Notice {
  id: number;
  text: string;
  isBad: boolean;
}

class Acts {
  asked = $state.raw<Act>();
  isRunning = $state(false);
  /** Why the act that is asked about failed. */
  problem = $state("");
  notices = $state.raw<Notice[]>([]);
  #last = 0;

  /** Ask for it; or say why it is not for us. */
  ask(act: Act): void {
    const refusal = me.refusal(act.needs);
    if (refusal) return this.tell(refusal, true);
    this.problem = "";
    this.asked = act;
  }

  async confirm(given: Record<string, string>): Promise<void> {
    if (!this.asked || this.isRunning) return;
    this.isRunning = true;
    try {
      this.tell(await this.asked.run(given));
      this.asked = undefined;
    } catch (thrown) {
      this.problem = problemOf(thrown);
    } finally {
      this.isRunning = false;
    }
  }

  cancel(): void {
    if (!this.isRunning) this.asked = undefined;
  }

  tell(text: string, isBad = false): void {
    const notice = { id: (this.#last += 1), text, isBad };
    this.notices = [...this.notices.slice(-3), notice];
    setTimeout(() => this.drop(notice.id), isBad ? 10_000 : 6000);
  }

  drop(id: number): void {
    this.notices = this.notices.filter((one) => one.id !== id);
  }
}

export const acts = new Acts();
