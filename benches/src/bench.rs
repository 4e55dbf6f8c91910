//! `make bench`: measures the filter and its alternatives side by side on this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use benches::events::{EVENTS, Event, GROWTH, TYPICAL};
use benches::yardstick::{Gateway, Variant};
use clap::Args;
use sandbox::process::pin_self;
use sandbox::say;

use crate::footprint::footprints;
use crate::load;
use crate::report;
use crate::results::{Cell, Machine, Results, Workers, own_docs};
use crate::turn::{Processors, for_load, load_of, measure, options, upstream};
use crate::without_envoy;

/// The share of Envoy's processor that other programs may take before the results are doubtful.
const TOLERABLE: f64 = 0.1;

/// How often a turn is repeated while other programs take more than that; the least disturbed turn counts.
const ATTEMPTS: usize = 3;

/// The parameters of a measurement.
#[derive(Debug, Args)]
pub struct Parameters {
    /// How often each variant has its turn with each event.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// How long a turn is.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Measure only these variants: bare, noop, floor, edits, shipped, nativefloor, native, lua,
    /// script, buffered, node.
    #[arg(long, value_delimiter = ',', value_parser = variant)]
    variants: Vec<Variant>,
    /// Measure only events of these sizes, in bytes.
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<usize>,
    /// Measure only the comparison, not start-up, memory, several workers, or the mapping alone.
    #[arg(long)]
    comparison: bool,
    /// The folder for the results; docs by default.
    #[arg(long)]
    into: Option<PathBuf>,
}

fn variant(name: &str) -> Result<Variant, String> {
    let found = Variant::ALL.into_iter().find(|variant| variant.name() == name);
    found.ok_or_else(|| "there is no such variant".to_owned())
}

impl Parameters {
    fn variants(&self) -> Vec<Variant> {
        Variant::ALL.into_iter().filter(|it| self.variants.is_empty() || self.variants.contains(it)).collect()
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        let is_wanted = |it: &Event| self.sizes.is_empty() || self.sizes.contains(&it.bytes);
        EVENTS.into_iter().chain(GROWTH).filter(is_wanted)
    }
}

/// Measures, and writes the results.
pub async fn run(parameters: Parameters) -> Result<()> {
    let docs = parameters.into.clone().unwrap_or_else(own_docs);
    let earlier = Results::read(&docs).ok().flatten().unwrap_or_default();
    // First, because these do not need reserved processors.
    let (mapping, instructions) = match parameters.comparison {
        true => (Vec::new(), String::new()),
        false => (without_envoy::speeds().await?, without_envoy::instructions().await?),
    };
    let processors = Processors::of_this_machine()?;
    pin_self(&processors.rest)?;
    let mut results = Results {
        machine: Machine::this()?,
        seconds: parameters.seconds,
        connections: load::CONNECTIONS,
        cells: compare(&parameters, &processors).await?,
        mapping,
        instructions,
        soak: earlier.soak,
        ..Results::default()
    };
    if !parameters.comparison {
        eprintln!("start-up and memory");
        results.footprints = footprints(&parameters.variants(), TYPICAL, &processors).await?;
        results.workers = more_workers(&parameters, &processors).await?;
    }
    results.write(&docs)?;
    report::write(&results, &docs)?;
    say!("{}", report::headline(&results)?.trim_end());
    if let Some(disturbance) = results.disturbance().filter(|it| it.median > TOLERABLE) {
        say!(
            "Half of the time something else took {:.0} % of Envoy's processor or more: measure again when the machine has \
             nothing else to do.",
            disturbance.median * 100.0
        );
    }
    say!("All of it is in {}.", docs.join("benchmarks.md").display());
    Ok(())
}

/// Measures each variant with each event, in turns.
async fn compare(parameters: &Parameters, processors: &Processors) -> Result<Vec<Cell>> {
    let segment = upstream().await?;
    let mut gateways = BTreeMap::new();
    for variant in parameters.variants() {
        let options = options(1, &processors.envoy);
        gateways.insert(variant, Gateway::start(variant, &segment, for_load, options, &processors.rest).await?);
    }

    let mut cells = Vec::new();
    let mut turns = Vec::new();
    for event in parameters.events() {
        let load = load_of(event)?;
        let variants = parameters.variants().into_iter().filter(|variant| gets(*variant, event));
        let first = cells.len();
        cells.extend(variants.map(|variant| Cell { variant, event, rounds: Vec::new() }));
        turns.push((load, first..cells.len()));
    }
    for round in 0..=parameters.rounds {
        match round {
            0 => eprintln!("warming up"),
            round => eprintln!("round {round} of {}", parameters.rounds),
        }
        for (load, turn) in &turns {
            let count = turn.len();
            for place in 0..count {
                let cell = &mut cells[turn.start + (place + round) % count];
                let gateway = gateways.get(&cell.variant).context("it was started")?;
                let turn = async || {
                    measure(gateway, &segment, processors, load, cell.event, parameters.seconds)
                        .await
                        .with_context(|| format!("{} with an event of {} bytes", cell.variant.name(), cell.event.bytes))
                };
                let mut measured = turn().await?;
                for _ in 1..ATTEMPTS {
                    if round > 0 && measured.disturbed > TOLERABLE {
                        let again = turn().await?;
                        measured = if again.disturbed < measured.disturbed { again } else { measured };
                    }
                }
                if round > 0 {
                    cell.rounds.push(measured);
                }
            }
        }
    }
    Ok(cells)
}

/// Whether a variant is measured with an event.
fn gets(variant: Variant, event: Event) -> bool {
    match GROWTH.contains(&event) {
        true => matches!(variant, Variant::Bare | Variant::Edits | Variant::Shipped | Variant::Native),
        false => event.customer || variant.reads_the_event(),
    }
}

/// Measures one worker, two, and so on, up to one for each processor, on all processors.
async fn more_workers(parameters: &Parameters, processors: &Processors) -> Result<Vec<Workers>> {
    let segment = upstream().await?;
    let load = load_of(TYPICAL)?;
    let all = [processors.envoy.as_slice(), &processors.rest].concat();
    let mut measured = Vec::new();
    let mut gateways = Vec::new();
    for variant in [Variant::Bare, Variant::Shipped, Variant::Native] {
        for workers in 1..=all.len() as u32 {
            gateways.push(Gateway::start(variant, &segment, for_load, options(workers, &all), &[]).await?);
            measured.push(Workers { variant, workers, rounds: Vec::new() });
        }
    }
    pin_self(&all)?;
    for round in 0..=parameters.rounds {
        eprintln!("more workers: round {round} of {}", parameters.rounds);
        for (gateway, measured) in gateways.iter().zip(&mut measured) {
            let turn = measure(gateway, &segment, processors, &load, TYPICAL, parameters.seconds).await?;
            if round > 0 {
                measured.rounds.push(turn);
            }
        }
    }
    Ok(measured)
}
