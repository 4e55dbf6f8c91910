//! The alternatives in the benchmark do what docs/benchmarks.md says of them.

mod cases_on_yardsticks;
mod events;
mod floors;
