//! Tests without Envoy: the mapping, the configuration, and the pages on both.

mod configuration;
mod contributing;
mod differential;
mod docs;
mod facts;
mod mapping;
mod mapping_options;
mod release;
mod schema;
mod source_function;
mod stream;
mod workflows;
