//! `make run`: the filter in a real Envoy, with a stand-in for Segment behind it or with Segment itself; and what sends
//! events to it or explains what it does with them.

mod bench;
mod debugger;
mod difference;
mod explain;
mod fixtures;
mod pretty;
mod run;
mod running;
mod send;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use sandbox::envoy::{Config, locate, workspace_root};
use sandbox::image;

/// Runs the filter in a real Envoy on this machine.
#[derive(Parser)]
enum Command {
    /// Finds Envoy, or installs it below the target folder, and prints its path.
    Envoy,
    /// Writes the module as an OCI image layout to target/image and prints the image's digest.
    Image {
        /// Its tag.
        version: String,
    },
    /// Runs the shipped envoy.yaml: with a stand-in for Segment, or with Segment itself if SEGMENT_WRITE_KEY and
    /// STIGG_WEBHOOK_SECRET are set.
    Run(run::Options),
    /// Sends an event to the running sandbox, or many, and prints what Stigg would show.
    Send(send::Options),
    /// Prints what the filter does with an event, and why; neither Envoy nor a secret is needed.
    Explain(explain::Options),
    /// Measures what the filter costs, beside what else could be in its place.
    Bench(bench::Parameters),
    /// Writes docs/benchmarks.md, its plots and the README's lines anew from the results.
    Report {
        /// The folder that the results are in; docs, if there is none.
        #[arg(long)]
        into: Option<PathBuf>,
    },
    /// Sends webhooks for a long time, and looks whether Envoy's memory grows.
    Soak(bench::soak::Parameters),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Envoy => locate().map(|binary| println!("{}", binary.display())),
        Command::Image { version } => image(&version),
        Command::Run(options) => run::run(options).await,
        Command::Send(options) => send::send(options).await,
        Command::Explain(options) => explain::explain(&options),
        Command::Bench(parameters) => bench::run(parameters).await,
        Command::Report { into } => bench::report(into),
        Command::Soak(parameters) => bench::soak::run(parameters).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn image(version: &str) -> Result<()> {
    let folder = workspace_root().join("target/image");
    let digest = image::write(&Config::shipped()?.module_file()?, version, &folder)?;
    println!("{digest}");
    Ok(())
}
