//! Code that the tests share. Each target needs more than the one before: `rules` needs nothing, `envoy` a real Envoy,
//! `deploy` also the tools for manifests and images. `ledger` takes long.

pub mod attacks;
pub mod case_runner;
pub mod cases;
pub mod deployed;
pub mod edge;
pub mod existing;
pub mod fixtures;
pub mod guard;
pub mod layout;
pub mod manifests;
pub mod openings;
pub mod outcome;
pub mod pages;
pub mod prometheus;
pub mod reference;
pub mod registry;
pub mod run_envoy;
pub mod skip;
pub mod tools;
pub mod translated;
pub mod volume;
