//! `make soak`: checks that Envoy's memory does not grow over a long run.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use benches::events::EVENTS;
use benches::yardstick::{Gateway, Variant};
use clap::Args;
use sandbox::process::pin_self;
use sandbox::say;

use crate::proc;
use crate::report;
use crate::results::{Machine, Results, Soak, own_docs};
use crate::turn::{Processors, for_load, load_of, measure, options, upstream};

/// The growth in bytes that Envoy may have from a tenth of the run to its end: its allocator and V8 keep varying reserves.
const BOUND: i64 = 2 << 20;

/// The parameters of a soak.
#[derive(Debug, Args)]
pub struct Parameters {
    /// Webhooks to send.
    #[arg(long, default_value_t = 1_000_000)]
    requests: usize,
    /// The folder with the results; docs by default.
    #[arg(long)]
    into: Option<PathBuf>,
}

/// Sends events of all sizes in turn, and measures the memory after each turn.
pub async fn run(parameters: Parameters) -> Result<()> {
    let processors = Processors::of_this_machine()?;
    pin_self(&processors.rest)?;
    let segment = upstream().await?;
    let options = options(1, &processors.envoy);
    let gateway = Gateway::start(Variant::Shipped, &segment, for_load, options, &[]).await?;
    let loads = EVENTS.iter().map(|event| load_of(*event)).collect::<Result<Vec<_>>>()?;

    let mut samples = Vec::new();
    let mut requests = 0;
    while requests < parameters.requests {
        for (load, event) in loads.iter().zip(EVENTS) {
            let round = measure(&gateway, &segment, &processors, load, event, 1).await?;
            requests += round.requests;
            samples.push((requests, proc::resident(gateway.envoy.pid())?));
        }
        eprintln!("{requests} of {} requests", parameters.requests);
    }

    let soak = Soak { machine: Machine::this()?, samples };
    let growth = soak.growth().context("nothing was measured")?;
    let docs = parameters.into.unwrap_or_else(own_docs);
    let mut results = Results::read(&docs)?.unwrap_or_default();
    results.soak = Some(soak);
    results.write(&docs)?;
    report::write(&results, &docs)?;
    say!("Envoy's memory grew by {growth} bytes in {requests} requests; {BOUND} are allowed");
    ensure!(growth <= BOUND, "the memory grew by {growth} bytes, more than {BOUND}");
    Ok(())
}
