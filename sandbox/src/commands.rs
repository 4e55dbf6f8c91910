//! What a user calls, and what these commands share.

pub mod explain;
pub mod run;
pub mod send;

mod calls;
mod debugger;
mod decision;
mod difference;
mod endpoint;
mod pretty;
