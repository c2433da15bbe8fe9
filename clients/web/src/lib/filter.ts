// Which records: between the address's query and what the control plane is asked.

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { RecordFilterSchema } from "../gen/ccr_rpc/v1/records_pb";
import { Outcome } from "../gen/ccr_rpc/v1/usage_pb";

export const OUTCOMES: Record<string, Outcome> = {
  served: Outcome.SERVED,
  failed: Outcome.FAILED,
  broken: Outcome.BROKEN,
  "client-left": Outcome.CLIENT_LEFT,
  refused: Outcome.REFUSED,
};

export function filterOf(query: URLSearchParams): MessageInitShape<typeof RecordFilterSchema> {
  const text = (name: string): string => query.get(name) ?? "";
  const slow = Number(text("slower"));
  return {
    client: text("client"),
    session: text("session"),
    provider: text("provider"),
    model: text("model"),
    keyLabel: text("key"),
    route: text("route"),
    outcome: OUTCOMES[text("outcome")] ?? Outcome.UNSPECIFIED,
    withFailedAttempt: text("moved") === "1",
    minTotalUs: Number.isFinite(slow) && slow > 0 ? BigInt(Math.round(slow * 1e6)) : 0n,
  };
}
