//! The shipped `envoy.yaml` in a real Envoy, between a sender and a stand-in for Segment.

mod cases_on_envoy;
mod delivery;
mod end_to_end;
mod environments;
mod existing;
mod hostile;
mod metrics;
mod monitoring;
mod omissions;
mod operations;
mod route;
mod shutdown;
mod vm;
