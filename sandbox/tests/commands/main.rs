//! `run` with the debugger's page, `send` and `explain`, as a user calls them. The filter must have been built.

mod browser;
mod child;
mod debugger;
mod explain;
mod output;
mod run;
mod send;
