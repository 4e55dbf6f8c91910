//! The alternatives in the benchmark do the whole job of the filter.

mod cases_on_yardsticks;
mod events;
