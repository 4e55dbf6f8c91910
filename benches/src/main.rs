//! What the filter costs: `make bench`, `make report` and `make soak`.

#![deny(clippy::print_stdout, reason = "`say!` does not panic when nobody reads the output")]

mod bench;
mod figure;
mod footprint;
mod load;
mod machine;
mod plot;
mod proc;
mod report;
mod results;
mod soak;
mod turn;
mod without_envoy;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sandbox::output::exit_code;

/// Measures what the filter costs.
#[derive(Parser)]
enum Command {
    /// Measures the filter and its alternatives.
    Bench(bench::Parameters),
    /// Fills in docs/benchmarks.md, its plots and the table in the README from the last results.
    Report {
        /// The folder with the results; docs by default.
        #[arg(long)]
        into: Option<PathBuf>,
    },
    /// Sends webhooks for a long time, and checks whether Envoy's memory grows.
    Soak(soak::Parameters),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Bench(parameters) => bench::run(parameters).await,
        Command::Report { into } => report::run(into),
        Command::Soak(parameters) => soak::run(parameters).await,
    };
    exit_code(result)
}
