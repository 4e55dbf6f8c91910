//! Tests without Envoy: the mapping, the configuration, and the pages on both.

mod configuration;
mod contributing;
mod differential;
mod docs;
mod mapping;
mod mapping_options;
mod numbers;
mod release;
mod schema;
mod stream;
