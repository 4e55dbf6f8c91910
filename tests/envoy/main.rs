//! The shipped `envoy.yaml` in a real Envoy, between a sender and a stand-in for Segment.

mod delivery;
mod end_to_end;
mod environments;
mod hostile;
mod metrics;
mod monitoring;
mod native;
mod operations;
mod portable;
mod vm;
