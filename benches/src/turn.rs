//! One turn of a measurement: a load on an Envoy, and the processor time that it takes.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use benches::events::Event;
use benches::yardstick::Gateway;
use sandbox::envoy::{Config, HTTP_CONNECTION_MANAGER, Options};
use sandbox::process::cpus;
use sandbox::segment::{self, Recording, Segment, Transport};
use sandbox::stigg::{PATH, SECRET_HEADER};
use serde_json::json;

use crate::load::{self, Load};
use crate::proc;
use crate::results::Round;

const SECRET: &str = "whsec_0123456789abcdef0123456789abcdef";

/// The headers of every webhook. The last is for the variants that forward headers unchanged.
const HEADERS: [(&str, &str); 3] = [
    (SECRET_HEADER, SECRET),
    ("content-type", "application/json"),
    ("authorization", "Basic d2swMTIzNDU2Nzg5YWJjZGVmZ2hpamtsbW5vcHFyc3Q6"),
];

/// How the processors are shared: one for Envoy, the others for the programs around it.
pub struct Processors {
    pub envoy: Vec<usize>,
    pub rest: Vec<usize>,
}

impl Processors {
    pub fn of_this_machine() -> Result<Self> {
        match cpus()?.as_slice() {
            [envoy, rest @ ..] if !rest.is_empty() => Ok(Self { envoy: vec![*envoy], rest: rest.to_vec() }),
            _ => bail!("at least two processors are needed: one for Envoy, one for the programs around it"),
        }
    }
}

pub fn load_of(event: Event) -> Result<Load> {
    Load::new(&HEADERS, &event.body())
}

/// The environment that `envoy.yaml` reads its secrets from.
pub fn options(concurrency: u32, cpus: &[usize]) -> Options {
    let options = Options { concurrency, cpus: cpus.to_vec(), ..Options::default() };
    options.env("SEGMENT_WRITE_KEY", "wk0123456789abcdefghijklmnopqrst").env("STIGG_WEBHOOK_SECRET", SECRET)
}

/// The changes for a benchmark: no rate limit, and the access log goes to /dev/null.
pub fn for_load(config: Config) -> Result<Config> {
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

pub async fn upstream() -> Result<Segment> {
    let options = segment::Options { transport: Transport::Plain, recording: Recording::Off, ..Default::default() };
    Segment::start_with(options).await
}

/// Takes one turn. Each answer must be correct, and Segment must get exactly the events that are to be sent.
pub async fn measure(
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
    // Requests under way at the end of this load, and of the one before, arrive as well.
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
