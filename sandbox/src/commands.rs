//! What a user calls, and what these commands share.

#![deny(clippy::print_stdout, reason = "`say!` does not panic when nobody reads the output")]

pub mod explain;
pub mod run;
pub mod send;

mod calls;
mod debugger;
mod decision;
mod difference;
mod endpoint;
mod pretty;
