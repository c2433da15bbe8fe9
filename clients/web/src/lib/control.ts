// The control plane, over grpc-web: one client for each of its services.

import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { AccessService } from "../gen/ccr_rpc/v1/access_pb";
import { ConfigService } from "../gen/ccr_rpc/v1/config_pb";
import { DashboardService } from "../gen/ccr_rpc/v1/dashboard_pb";
import { EventService } from "../gen/ccr_rpc/v1/events_pb";
import { FleetService } from "../gen/ccr_rpc/v1/fleet_pb";
import { KeyService } from "../gen/ccr_rpc/v1/keys_pb";
import { UsageLedgerService } from "../gen/ccr_rpc/v1/ledger_pb";
import { ProviderService } from "../gen/ccr_rpc/v1/providers_pb";
import { RecordService } from "../gen/ccr_rpc/v1/records_pb";
import { RouteService } from "../gen/ccr_rpc/v1/routes_pb";
import { StatsService } from "../gen/ccr_rpc/v1/stats_pb";
import { token } from "./token";

const withToken: Interceptor = (next) => (request) => {
  const held = token();
  if (held) request.header.set("authorization", `Bearer ${held}`);
  return next(request);
};

const transport = createGrpcWebTransport({ baseUrl: location.origin, interceptors: [withToken] });

export const access = createClient(AccessService, transport);
export const config = createClient(ConfigService, transport);
export const dashboard = createClient(DashboardService, transport);
export const events = createClient(EventService, transport);
export const fleet = createClient(FleetService, transport);
export const keys = createClient(KeyService, transport);
export const ledger = createClient(UsageLedgerService, transport);
export const providers = createClient(ProviderService, transport);
export const records = createClient(RecordService, transport);
export const routes = createClient(RouteService, transport);
export const stats = createClient(StatsService, transport);

/** How long an answer may take. */
export const WITHIN = { timeoutMs: 10_000 };

/** What went wrong, for people. */
export function problemOf(thrown: unknown): string {
  const error = ConnectError.from(thrown);
  switch (error.code) {
    case Code.Unimplemented:
      return "This control plane does not know how to do that: update it.";
    case Code.Unavailable:
    case Code.Unknown:
      return error.rawMessage && !/fetch|network/i.test(error.rawMessage) ? error.rawMessage : "The control plane does not answer.";
    case Code.DeadlineExceeded:
      return "The control plane did not answer in time.";
    case Code.Aborted:
      return `Somebody else changed it meanwhile: look again, then decide. (${error.rawMessage})`;
    default:
      return error.rawMessage || Code[error.code];
  }
}

/** Whether the token is not (or no longer) good. */
export function isTokenRefused(thrown: unknown): boolean {
  return ConnectError.from(thrown).code === Code.Unauthenticated;
}
