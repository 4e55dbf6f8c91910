//! What a benchmark sends ([`events`], [`body`]), and what the filter is measured against ([`yardstick`]).

pub mod body;
pub mod events;
pub mod yardstick;
