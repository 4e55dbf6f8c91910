//! The gateways' own code on this machine: what they make of the manifests in deploy/, and what their Envoys then do.
//!
//! `make test-gateways` builds the gateways, and runs this alone (`alone`), because they have fixed ports and paths.

mod changes;
mod chart;
mod commands;
mod data;
mod differences;
mod digests;
mod envoy_gateway;
mod gateway;
mod istio;
mod kubernetes;
mod monitoring;
mod omissions;
mod scale;
mod tls;
mod unheld;
