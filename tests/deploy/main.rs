//! The ways to deploy the filter: the manifests, the image, and the Envoys that result.

mod commands;
mod container;
mod deployments;
mod image;
mod manifests;
mod monitoring;
mod nginx;
mod schemas;
mod systemd;
