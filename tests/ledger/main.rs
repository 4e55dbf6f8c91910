//! The main promise: every event that Stigg counts as delivered is at Segment, once and unaltered, and Stigg saw every other
//! delivery fail.
//!
//! A sender that behaves like Stigg delivers thousands of events, each from two environments with a source of Segment's
//! for each, on many connections while the stand-in for Segment fails
//! at random, Envoy is stopped and killed and started again, and the filter breaks down. `LEDGER_EVENTS` sets how many events there
//! are, those of both environments together, and `LEDGER_SEED` repeats the chances of a run; which request comes when is up to the machine.

mod audit;
mod dice;
mod event;
mod faults;
mod sender;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use audit::{Arrival, audit};
use event::{About, ENVIRONMENTS, Event};
use faults::Faults;
use nix::sys::signal::Signal;
use sandbox::envoy::{Config, Envoy, ROUTE, Shell};
use sandbox::segment::Segment;
use sandbox::stigg::Webhook;
use sandbox::trapping;
use sender::{ATTEMPTS, Attempt, HASTE, Sender, delivered};
use serde_json::{Value, json};
use tests::edge::*;
use tests::run_envoy::{RunEnvoy, free_address};
use tokio::sync::watch;
use tokio::task::JoinSet;

const CONNECTIONS: usize = 64;

/// The filter's export for requests that end in trailers. No event has trailers, so this function may trap.
const TRAP: &str = "proxy_on_request_trailers";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_at_segment_once_and_unaltered_or_stigg_was_told() -> Result<()> {
    let count = variable("LEDGER_EVENTS")?.map_or(2_000, |events| events as usize);
    let seed = variable("LEDGER_SEED")?.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32);
    println!("{count} events, LEDGER_SEED={seed}");
    let begin = Instant::now();
    let events: Arc<[Event]> = (0..count).map(|number| Event::new(number, seed)).collect();

    let segment = Segment::start().await?;
    let receiver = SocketAddr::from(([127, 0, 0, 1], free_port(seed)?));
    let config = hastened(Config::sandboxed_with(shell(), &segment)?)?;
    let trapping = match shell() {
        Shell::Wasm => Some(trapping::module(&config.module_file()?, TRAP)?),
        Shell::Native => None,
    };
    let config = config
        .module(trapping.as_deref().unwrap_or(&panicking_module()))?
        .set("/static_resources/listeners/webhooks/address/socket_address/port_value", json!(receiver.port()))?
        .paths(ENVIRONMENTS.map(|(path, _)| (path, "/v1/track")))?
        .edit_plugin_configuration(|own| {
            let environments =
                ENVIRONMENTS.map(|(path, key)| (path.to_owned(), json!({ "write_key": { "value": key } })));
            own["environments"] = Value::Object(environments.into_iter().collect());
        })?;
    let faults = Faults::new(seed, duration(&config, &format!("{ROUTE}/route/retry_policy/per_try_timeout"))?);
    segment.behave_with({
        let faults = faults.clone();
        move |call| faults.decide(call)
    });
    let first = RunEnvoy::start(config.clone(), receiver, free_address()?).await?;

    let begun = watch::Sender::new(0);
    let connections = Arc::new(AtomicUsize::new(0));
    let mut senders = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (begun, connections, events) = (begun.clone(), connections.clone(), events.clone());
        senders.spawn(async move {
            let mut sender = Sender::new(receiver);
            let mut told = Vec::new();
            loop {
                let mut next = 0;
                begun.send_modify(|begun| next = std::mem::replace(begun, *begun + 1));
                let Some(event) = events.get(next) else { break };
                told.push((event.number, sender.deliver(event).await));
            }
            connections.fetch_add(sender.connections, Relaxed);
            told
        });
    }
    let mut progress = begun.subscribe();
    let mut tenths = begun.subscribe();
    tokio::spawn(async move {
        for tenth in 1..=10 {
            if tenths.wait_for(|begun| *begun >= count / 10 * tenth).await.is_ok() {
                println!("        {} events have begun, {:.0?}", count / 10 * tenth, begin.elapsed());
            }
        }
    });

    progress.wait_for(|begun| *begun >= count / 5).await?;
    let stopped = (*begun.borrow(), Instant::now());
    first.signal(Signal::SIGTERM)?;
    ensure!(first.exited().await?.success(), "{}", first.log());
    let mut envoy = Envoy::start(config.clone(), options()).await?;
    println!("Envoy   stopped when event {} had begun, back after {:?}", stopped.0, stopped.1.elapsed());

    progress.wait_for(|begun| *begun >= count * 2 / 5).await?;
    let killed = (*begun.borrow(), Instant::now());
    envoy.kill()?;
    envoy.exited().await;
    envoy = Envoy::start(config, options()).await?;
    println!("        killed when event {} had begun, back after {:?}", killed.0, killed.1.elapsed());

    progress.wait_for(|begun| *begun >= count * 2 / 3).await?;
    let vms_before = vms(&envoy).await?;
    let broken = *begun.borrow();
    break_down(&envoy).await?;
    println!("        filter broke down when event {broken} had begun");

    let told: BTreeMap<usize, Vec<Attempt>> = senders.join_all().await.into_iter().flatten().collect();
    let took = begin.elapsed();
    let new_vms = u64::from(shell() == Shell::Wasm);
    assert_eq!(vms(&envoy).await?, vms_before + new_vms, "VMs\n{}", envoy.log_tail());
    drop(envoy); // and the calls that are still under way

    let calls = segment.calls();
    let arrivals: Vec<_> = calls.iter().map(arrival).collect();
    let books = audit(&events, &told, &arrivals);

    // Print the figures.
    let number_of = |is_it: &dyn Fn(&Event) -> bool| events.iter().filter(|event| is_it(event)).count();
    let is_customer = |event: &Event| matches!(event.about, About::Customer(_));
    let is_delivered = |event: &Event| told.get(&event.number).is_some_and(|attempts| delivered(attempts));
    let customers = number_of(&is_customer);
    let others = number_of(&|event| matches!(event.about, About::NoCustomer));
    let customers_delivered = number_of(&|event| is_customer(event) && is_delivered(event));
    let others_delivered = number_of(&|event| !is_customer(event) && is_delivered(event));
    let failed = number_of(&|event| !is_delivered(event));
    let failed_but_kept = number_of(&|event| !is_delivered(event) && books.kept.contains(&event.number));
    let outcomes = tally(told.values().flatten().copied());
    let kept = arrivals.iter().filter(|arrival| arrival.kept).count();
    let distinct = books.kept.len();
    println!(
        "Stigg   {customers} events about customers, {others} about none, {} unusable\n        \
         {customers_delivered} delivered with 200, {others_delivered} with 204, {failed} failed after {ATTEMPTS} attempts, \
         {failed_but_kept} of them at Segment nevertheless\n        \
         {} attempts on {} connections: {outcomes:?}\n\
         Segment {} calls on {} connections, {kept} kept: {distinct} events and {} duplicates\n        {:?}\n\
         {took:.1?}, findings: {:?}",
        count - customers - others,
        outcomes.values().sum::<usize>(),
        connections.load(Relaxed),
        calls.len(),
        segment.connections(),
        kept - distinct,
        faults.tally(),
        books.findings,
    );

    assert_eq!(books.findings, BTreeSet::new());
    Ok(())
}

/// Makes the filter break down during the load: its VM traps, or the dynamic module panics.
async fn break_down(envoy: &Envoy) -> Result<()> {
    let (failure, sign) = match shell() {
        Shell::Wasm => (503, TRAP),
        Shell::Native => (500, "a panic at"),
    };
    loop {
        let webhook = Webhook::new(EVENT).secret(SECRET).http2().trailer("x-trailer", "1");
        let webhook = webhook.header("x-panic", "request_trailers");
        let status = webhook.send(&envoy.url(PATH)).await?.status;
        ensure!(status == failure || status == 429, "a filter that breaks down answers {status}");
        // Also if the rate limit applied.
        if envoy.wait_for_line(|line| line.contains(sign), Duration::from_secs(1)).await.is_ok() {
            return Ok(());
        }
    }
}

fn arrival(call: &sandbox::segment::Call) -> Arrival {
    Arrival { body: call.body.to_vec(), write_key: call.write_key.clone(), kept: call.accepted }
}

/// How often each item occurs.
fn tally<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut tally = BTreeMap::new();
    for item in items {
        *tally.entry(item).or_default() += 1;
    }
    tally
}

/// The way to Segment on the sender's time.
fn hastened(mut config: Config) -> Result<Config> {
    for path in [
        "timeout",
        "retry_policy/per_try_timeout",
        "retry_policy/retry_back_off/base_interval",
        "retry_policy/retry_back_off/max_interval",
        "retry_policy/rate_limited_retry_back_off/max_interval",
    ] {
        let path = format!("{ROUTE}/route/{path}");
        let shorter = duration(&config, &path)? / HASTE;
        config = config.set(&path, json!(format!("{:.3}s", shorter.as_secs_f64())))?;
    }
    Ok(config)
}

/// The duration at a path of a configuration, such as `1.5s`.
fn duration(config: &Config, path: &str) -> Result<Duration> {
    let text = config.get(path)?.as_str().and_then(|text| text.strip_suffix('s'));
    Ok(Duration::try_from_secs_f64(text.with_context(|| format!("{path} is not a duration"))?.parse()?)?)
}

/// A port for a listener that restarts. It must not be one that the system gives to connections: a sender that connects while
/// nothing listens could get that very port, and would connect to itself.
fn free_port(seed: u64) -> Result<u16> {
    const BELOW_THE_SYSTEMS: std::ops::Range<u16> = 20_000..30_000;
    let ports = BELOW_THE_SYSTEMS.len();
    let mut ports = BELOW_THE_SYSTEMS.cycle().skip(seed as usize % ports).take(ports);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).context("no port is free")
}

fn variable(name: &str) -> Result<Option<u64>> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.map(|value| value.parse().with_context(|| format!("{name} is not a number: {value}"))).transpose()
}
