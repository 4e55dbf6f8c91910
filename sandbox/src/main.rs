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
use sandbox::output::exit_code;
use sandbox::{image, say, workspace_root};

use crate::commands::{check, explain, run, send};

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
    let (name, digest) = if modules {
        let processors = [("amd64", "x86_64"), ("arm64", "aarch64")].map(|(name, processor)| image::Processor {
            name,
            library: target.join("portable").join(processor).join("libstigg_segment.so"),
            copy: target.join("copy").join(processor).join("copy"),
        });
        ("-modules", image::write_modules(&wasm, &processors, version, &target.join("image-modules"))?)
    } else {
        ("", image::write(&wasm, version, &target.join("image"))?)
    };
    say!("stigg-segment-filter{name}@{digest}"); // pins the image in a manifest
    Ok(())
}
