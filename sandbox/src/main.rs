//! The commands of the sandbox: `run` runs the filter in a real Envoy, `send` sends it events, `explain` says what it does
//! with them, `check` compares that with what is expected.

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "`say!` and `note` do not panic when nobody reads the output"
)]

mod commands;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use sandbox::envoy::{Config, locate};
use sandbox::image::{self, Origin};
use sandbox::output::exit_code;
use sandbox::{say, workspace_root};

use crate::commands::{check, dist, explain, run, send};

/// Runs the filter in a real Envoy on this machine.
#[derive(Parser)]
enum Command {
    /// Finds Envoy, or installs it below the target folder, and prints its path.
    Envoy,
    /// Writes the module as an OCI image layout to target/image and prints its name with its digest.
    Image {
        /// Its tag.
        version: String,
        /// Write the image of both modules for pods instead, for each processor, to target/image-modules
        #[arg(long)]
        modules: bool,
    },
    /// Writes everything that a release consists of to target/dist. `make dist` builds what it is made from.
    Dist(dist::Options),
    /// Runs the shipped envoy.yaml: with a stand-in for Segment, or with Segment itself if SEGMENT_WRITE_KEY and
    /// STIGG_WEBHOOK_SECRET are set.
    Run(run::Options),
    /// Sends one event or many to the running sandbox, and prints what Stigg would show.
    Send(send::Options),
    /// Prints what the filter does with an event, and why, or with many. It needs neither Envoy nor a secret.
    Explain(explain::Options),
    /// Checks that a configuration does with events what you expect of it. It needs neither Envoy nor a secret.
    Check(check::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Envoy => envoy(),
        Command::Image { version, modules } => image(&version, modules),
        Command::Dist(options) => dist::dist(&options),
        Command::Run(options) => run::run(options).await,
        Command::Send(options) => send::send(options).await,
        Command::Explain(options) => explain::explain(&options),
        Command::Check(options) => check::check(&options),
    };
    exit_code(result)
}

fn envoy() -> Result<()> {
    say!("{}", locate()?.display());
    Ok(())
}

fn image(version: &str, modules: bool) -> Result<()> {
    let target = workspace_root().join("target");
    let wasm = Config::shipped()?.module_file()?;
    let origin = Origin { version, source: None, revision: None };
    let (name, digest) = if modules {
        ("-modules", image::write_modules(&wasm, &dist::processors(), &origin, &target.join("image-modules"))?)
    } else {
        ("", image::write(&wasm, &origin, &target.join("image"))?)
    };
    say!("stigg-segment-filter{name}@{digest}"); // pins the image in a manifest
    Ok(())
}
