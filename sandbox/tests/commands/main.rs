//! `run` with the debugger's page, `send`, `explain` and `check`, as a user calls them. The filter must have been built.

mod browser;
mod check;
mod child;
mod debugger;
mod explain;
mod output;
mod run;
mod send;
