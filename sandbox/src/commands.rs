//! The commands that a user calls, and the code they share.

#![deny(clippy::print_stdout, reason = "`say!` does not panic when nobody reads the output")]

pub mod explain;
pub mod run;
pub mod send;

mod debugger;
mod decision;
mod difference;
mod endpoint;
mod pretty;
