//! The ways to deploy the filter: the manifests, the image, and the Envoys that result.

mod commands;
mod container;
mod deployments;
mod envoy_gateway;
mod image;
mod istio;
mod manifests;
mod nginx;
mod registry;
mod schemas;
mod systemd;
mod xds;
