//! What holds without an Envoy: the mapping, the configuration, and what the pages say of both.

mod configuration;
mod differential;
mod docs;
mod mapping;
mod mapping_options;
mod schema;
mod stream;
