//! What a user calls, and what these commands share.

pub mod explain;
pub mod run;
pub mod send;

mod debugger;
mod difference;
mod endpoint;
mod origins;
mod pretty;
