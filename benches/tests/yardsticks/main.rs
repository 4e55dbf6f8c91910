//! The filters that the benchmark compares this one with do the whole job too.

mod events;
mod portable;
