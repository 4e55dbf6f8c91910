//! `make soak`: whether Envoy's memory stays what it is over a long run.

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

/// What Envoy may grow by from a tenth of the run to its end, in bytes: what its allocator and V8 keep for later varies.
const BOUND: i64 = 2 << 20;

/// How long it runs.
#[derive(Debug, Args)]
pub struct Parameters {
    /// Webhooks to send.
    #[arg(long, default_value_t = 1_000_000)]
    requests: usize,
    /// The folder that the results are in; docs, if there is none.
    #[arg(long)]
    into: Option<PathBuf>,
}

/// Sends events of all sizes in turn, and looks at the memory after each turn.
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
    ensure!(growth <= BOUND, "that is too much");
    Ok(())
}
