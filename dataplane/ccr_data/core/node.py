"""Who a node is, and how it is."""

from __future__ import annotations

from dataclasses import dataclass

from ccr_data.core.budget import BudgetUse


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """One ccr-data process."""

    node_id: str  # stable and unique in the fleet, for example "laptop/worker-0"
    instance_id: str  # differs for every start of the process
    software_version: str
    pid: int


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What a node says of itself now and then."""

    open_requests: int = 0
    open_connections: int = 0
    unauthorized_total: int = 0  # since its start
    budgets: tuple[BudgetUse, ...] = ()
    open_by_provider: tuple[tuple[str, int], ...] = ()  # requests under way at each provider, by name
