//! The filter as a dynamic module: the tests of `tests/envoy` and `tests/ledger` that concern both shells, and what only
//! this one can do.

#[path = "../envoy/cases_on_envoy.rs"]
mod cases_on_envoy;
#[path = "../envoy/delivery.rs"]
mod delivery;
#[path = "../envoy/end_to_end.rs"]
mod end_to_end;
#[path = "../envoy/environments.rs"]
mod environments;
#[path = "../envoy/hostile.rs"]
mod hostile;
#[path = "../ledger/main.rs"]
mod ledger;
#[path = "../envoy/metrics.rs"]
mod metrics;
#[path = "../envoy/monitoring.rs"]
mod monitoring;
#[path = "../envoy/operations.rs"]
mod operations;
mod panics;
#[path = "../envoy/route.rs"]
mod route;
#[path = "../envoy/shutdown.rs"]
mod shutdown;
mod updates;
