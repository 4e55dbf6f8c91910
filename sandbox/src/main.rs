//! `make run`: the filter in a real Envoy, with a stand-in for Segment behind it or with Segment itself.

mod matrix;
mod pretty;
mod run;

use std::process::ExitCode;

use clap::Parser;
use sandbox::envoy::locate;

/// Runs the filter in a real Envoy on this machine.
#[derive(Parser)]
enum Command {
    /// Finds Envoy, or installs it below the target folder, and prints its path.
    Envoy,
    /// Runs the shipped envoy.yaml: with a stand-in for Segment, or with Segment itself if SEGMENT_WRITE_KEY and
    /// STIGG_WEBHOOK_SECRET are set.
    Run,
    /// Runs the tests on every version of Envoy that the filter is made for, and writes a table of them into the README.
    Matrix,
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Envoy => locate().map(|binary| println!("{}", binary.display())),
        Command::Run => run::run().await,
        Command::Matrix => matrix::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
