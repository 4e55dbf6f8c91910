//! The filters that the benchmark compares this one with do the whole job too.

mod cases_on_yardsticks;
mod events;
