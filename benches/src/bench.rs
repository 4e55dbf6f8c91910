//! `make bench`: what the filter costs, beside what else could be in its place, side by side on this machine.

mod footprint;
mod load;
mod machine;
mod module;
mod plot;
mod proc;
mod report;
mod results;
pub mod soak;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use sandbox::envoy::{Config, HTTP_CONNECTION_MANAGER, Options};
use sandbox::process::{cpus, pin_self};
use sandbox::sample;
use sandbox::segment::{self, Recording, Segment, Transport};
use sandbox::stigg::SECRET_HEADER;
use sandbox::yardstick::{Gateway, Variant};
use serde_json::json;

use self::footprint::footprints;
use self::load::Load;
use self::report::own_docs;
use self::results::{Cell, Event, Machine, Results, Round, Workers};

const SECRET: &str = "whsec_0123456789abcdef0123456789abcdef";
const PATH: &str = "/webhooks/stigg";

/// The headers of every webhook. The last is for the variants that send headers on as they come.
const HEADERS: [(&str, &str); 3] = [
    (SECRET_HEADER, SECRET),
    ("content-type", "application/json"),
    ("authorization", "Basic d2swMTIzNDU2Nzg5YWJjZGVmZ2hpamtsbW5vcHFyc3Q6"),
];

const KIB: usize = 1024;

/// The events that all variants get.
const EVENTS: [Event; 5] = [
    Event { bytes: KIB / 2, customer: true },
    Event { bytes: 2 * KIB, customer: true },
    Event { bytes: 16 * KIB, customer: true },
    Event { bytes: 31 * KIB, customer: true },
    Event { bytes: 2 * KIB, customer: false },
];

/// Events that show how the cost grows.
const GROWTH: [Event; 3] = [
    Event { bytes: 4 * KIB, customer: true },
    Event { bytes: 8 * KIB, customer: true },
    Event { bytes: 24 * KIB, customer: true },
];

/// How much of Envoy's processor something else may take before the results are in doubt.
const TOLERABLE: f64 = 0.1;

/// How often a turn is taken when something else took more than that, until it did not; the least disturbed one counts.
const ATTEMPTS: usize = 3;

/// How much is measured.
#[derive(Debug, Args)]
pub struct Parameters {
    /// How often each variant has its turn with each event.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// How long a turn is.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Only these variants: bare, noop, edits, shipped, lua, buffered, node.
    #[arg(long, value_delimiter = ',', value_parser = variant)]
    variants: Vec<Variant>,
    /// Only events of these sizes, in bytes.
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<usize>,
    /// Only the comparison: no start-up, no memory, no more workers than one, no mapping alone.
    #[arg(long)]
    comparison: bool,
    /// The folder for the results; docs, if there is none.
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

/// Which processors do what: one is Envoy's, the others are for what is around it.
struct Processors {
    envoy: Vec<usize>,
    rest: Vec<usize>,
}

impl Processors {
    fn of_this_machine() -> Result<Self> {
        match cpus()?.as_slice() {
            [envoy, rest @ ..] if !rest.is_empty() => Ok(Self { envoy: vec![*envoy], rest: rest.to_vec() }),
            _ => bail!("at least two processors are needed: one for Envoy, one for what is around it"),
        }
    }
}

/// Measures, and writes down what came of it.
pub async fn run(parameters: Parameters) -> Result<()> {
    let docs = parameters.into.clone().unwrap_or_else(own_docs);
    let earlier = Results::read(&docs).ok().flatten().unwrap_or_default();
    // First, since they have no use for processors of their own.
    let (mapping, instructions) = match parameters.comparison {
        true => (Vec::new(), String::new()),
        false => (module::speeds().await?, module::instructions().await?),
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
    print!("{}", results.headline()?);
    if let Some(disturbance) = results.disturbance().filter(|it| it.median > TOLERABLE) {
        println!(
            "Half of the time something else took {:.0} % of Envoy's processor or more: measure again when the machine has \
             nothing else to do.",
            disturbance.median * 100.0
        );
    }
    println!("All of it is in {}.", docs.join("benchmarks.md").display());
    Ok(())
}

/// Makes the report anew from the results, and says what the README has of them.
pub fn report(into: Option<PathBuf>) -> Result<()> {
    let docs = into.unwrap_or_else(own_docs);
    let results = Results::read(&docs)?.context("there are no results: run `make bench` first")?;
    results.write(&docs)?;
    print!("{}", results.headline()?);
    Ok(())
}

/// The size that most events have.
const TYPICAL: Event = EVENTS[1];

fn load_of(event: Event) -> Result<Load> {
    Load::new(&HEADERS, &sample::event(event.bytes, event.customer.then_some("acme")))
}

/// The environment that `envoy.yaml` reads its secrets from.
fn options(concurrency: u32, cpus: &[usize]) -> Options {
    let options = Options { concurrency, cpus: cpus.to_vec(), ..Options::default() };
    options.env("SEGMENT_WRITE_KEY", "wk0123456789abcdefghijklmnopqrst").env("STIGG_WEBHOOK_SECRET", SECRET)
}

/// What a benchmark needs: no limit on the rate, and an access log that nobody has to read.
fn for_load(config: Config) -> Result<Config> {
    let filters = format!("{HTTP_CONNECTION_MANAGER}/http_filters");
    let log = format!("{HTTP_CONNECTION_MANAGER}/access_log/0/typed_config");
    let bucket = json!({ "max_tokens": u32::MAX, "tokens_per_fill": u32::MAX, "fill_interval": "1s" });
    let config = config
        .set(&format!("{filters}/local_ratelimit/typed_config/token_bucket"), bucket)?
        .set(
            &format!("{log}/@type"),
            json!("type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"),
        )?
        .set(&format!("{log}/path"), json!("/dev/null"))?;
    Ok(config)
}

async fn upstream() -> Result<Segment> {
    let options = segment::Options { transport: Transport::Plain, recording: Recording::Off, ..Default::default() };
    Segment::start_with(options).await
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
        true => matches!(variant, Variant::Bare | Variant::Edits | Variant::Shipped),
        false => event.customer || variant.reads_the_event(),
    }
}

/// What one worker, two, and so on do, up to one for each processor, on all processors.
async fn more_workers(parameters: &Parameters, processors: &Processors) -> Result<Vec<Workers>> {
    let segment = upstream().await?;
    let load = load_of(TYPICAL)?;
    let all = [processors.envoy.as_slice(), &processors.rest].concat();
    let mut measured = Vec::new();
    let mut gateways = Vec::new();
    for variant in [Variant::Bare, Variant::Shipped] {
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

/// One turn. Each answer must be the right one, and Segment must get each event that is to be sent, and no other.
async fn measure(
    gateway: &Gateway,
    segment: &Segment,
    processors: &Processors,
    load: &Load,
    event: Event,
    seconds: u64,
) -> Result<Round> {
    let url = gateway.envoy.url(PATH);
    segment.clear();
    let cpu_time = || gateway.pids().map(proc::cpu_time).sum::<Result<Duration>>();
    let envoy = || proc::cpu_time(gateway.envoy.pid());
    let processor = || processors.envoy.iter().map(|cpu| proc::busy_time(*cpu)).sum::<Result<Duration>>();
    let (busy_before, envoy_before) = (processor()?, envoy()?);
    let before = cpu_time()?;
    let served = load.run(&url, seconds).await?;
    let spent = cpu_time()? - before;
    let (busy, envoy) = (processor()? - busy_before, envoy()? - envoy_before);

    let arrived = segment.accepted_count();
    // What was on its way when the load ended, this turn and the one before, arrives as well.
    let least = if event.customer { served.requests } else { 0 };
    let expected = least..=least + 2 * load::CONNECTIONS;
    ensure!(expected.contains(&arrived), "{} answers, and {arrived} calls to Segment", served.requests);
    Ok(Round {
        requests: served.requests,
        cpu_us: spent.as_secs_f64() * 1e6 / served.requests as f64,
        per_second: served.requests as f64 / served.seconds,
        p50_us: served.p50_us,
        p99_us: served.p99_us,
        busy: envoy.as_secs_f64() / served.seconds,
        disturbed: busy.saturating_sub(envoy).as_secs_f64() / served.seconds,
    })
}
