//! What holds without an Envoy: the mapping, the configuration, and what the pages say of both.

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
