//! What holds without an Envoy: the mapping, the configuration, and what the pages say of both.

mod configuration;
mod contributing;
mod differential;
mod docs;
mod facts;
mod mapping;
mod mapping_options;

mod release;
mod schema;
mod stream;
