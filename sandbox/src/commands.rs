//! The commands that a user calls, and the code they share.

pub mod check;
pub mod dist;
pub mod explain;
pub mod run;
pub mod send;

mod calls;
mod debugger;
mod decision;
mod difference;
mod endpoint;
mod own;
mod pretty;
mod rules;
mod unmatched;
