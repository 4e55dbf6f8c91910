//! The [`events`] that a benchmark sends, and the alternatives that the filter is measured against ([`yardstick`]).

pub mod events;
pub mod yardstick;
