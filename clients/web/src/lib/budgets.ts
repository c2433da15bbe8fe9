// How much of budgets was used over the last hour, as the stream tells it: whole at first, then point by point.

import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { BudgetHistory, BudgetKind } from "../gen/ccr_rpc/v1/keys_pb";

const MAX_POINTS = 360; // an hour of them

export interface Line {
  kind: BudgetKind;
  /** Thousandths of the limit. The last one is of the newest point; an account that is newer has fewer. */
  used: number[];
}

/** Lists are added to in place: there may be thousands, of which one point comes at a time. */
export class Budgets {
  /** When the points were taken, in milliseconds, oldest first. */
  at: number[] = [];
  #lines = new Map<string, Map<BudgetKind, Line>>();

  /** The lines of one budget, by kind. */
  of(provider: string, scope: string, modelClass: string): Line[] {
    const found = this.#lines.get(nameOf(provider, scope, modelClass));
    return found ? [...found.values()].toSorted((one, other) => one.kind - other.kind) : [];
  }

  /** Take what a message tells, and keep its lists; `isFirst`: nothing of its stream was taken before, so what is held may have gaps. */
  take(told: BudgetHistory, isFirst: boolean): void {
    const at = told.at.map((one) => timestampMs(one));
    const newest = this.at.at(-1) ?? -Infinity;
    const isLater = !isFirst && at.length > 0 && (at[0] ?? 0) > newest;
    if (!isLater && (isFirst || at.at(-1) !== newest)) {
      this.at = [];
      this.#lines.clear();
    }
    if (isLater) this.#add(told, at);
    else {
      if (at.length) this.at = at;
      for (const one of told.lines) this.#lineOf(one).set(one.kind, { kind: one.kind, used: one.usedPermille });
    }
  }

  #add(told: BudgetHistory, at: number[]): void {
    const lines = new Map<string, Map<BudgetKind, Line>>();
    for (const one of told.lines) {
      const name = nameOf(one.provider, one.scope, one.modelClass);
      const line = this.#lines.get(name)?.get(one.kind) ?? { kind: one.kind, used: [] };
      line.used.push(...one.usedPermille);
      trim(line.used);
      lines.set(name, (lines.get(name) ?? new Map<BudgetKind, Line>()).set(one.kind, line));
    }
    this.#lines = lines; // a line that is not told any more has ended
    this.at.push(...at);
    trim(this.at);
  }

  #lineOf(one: { provider: string; scope: string; modelClass: string }): Map<BudgetKind, Line> {
    const name = nameOf(one.provider, one.scope, one.modelClass);
    const found = this.#lines.get(name) ?? new Map<BudgetKind, Line>();
    this.#lines.set(name, found);
    return found;
  }
}

function trim(list: number[]): void {
  if (list.length > MAX_POINTS) list.splice(0, list.length - MAX_POINTS);
}

function nameOf(provider: string, scope: string, modelClass: string): string {
  return `${provider}\n${scope}\n${modelClass}`;
}
