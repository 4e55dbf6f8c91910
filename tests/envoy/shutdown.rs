//! How an Envoy ends under `deploy/run-envoy`: no request is cut off, whoever sends the signal and however much is sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use sandbox::envoy::{Config, HTTP_CONNECTION_MANAGER, workspace_root};
use sandbox::process::Process;
use sandbox::segment::{Behaviour, Segment};
use sandbox::stigg::Webhook;
use serde_json::json;
use tests::edge::*;
use tests::run_envoy::{RunEnvoy, free_address, free_address_at};
use tests::skip::skip;
use tokio::task::JoinSet;

const CLIENTS: usize = 20;

async fn start(segment: &Segment) -> Result<RunEnvoy> {
    let config = Config::sandboxed_with(shell(), segment)?;
    RunEnvoy::start(config, free_address()?, free_address()?).await
}

#[tokio::test]
async fn on_sigterm_every_accepted_webhook_is_still_answered() -> Result<()> {
    let segment = Segment::start().await?;
    segment.behave(Behaviour::Accept.after(Duration::from_secs(2)));
    let envoy = start(&segment).await?;
    let mut sent = JoinSet::new();
    for n in 0..CLIENTS {
        let url = envoy.url(PATH);
        let webhook = Webhook::new(EVENT).secret(SECRET);
        sent.spawn(async move { (if n % 2 == 0 { webhook } else { webhook.http2() }).send(&url).await });
    }
    eventually("all are under way", async || Ok(segment.requests_begun() == CLIENTS)).await?;
    assert_eq!(segment.calls().len(), 0, "all of them are under way");
    envoy.signal(Signal::SIGTERM)?;
    for answer in sent.join_all().await {
        assert_eq!(answer?.status, 200);
    }
    assert!(envoy.exited().await?.success());
    assert_eq!(segment.accepted().len(), CLIENTS);
    Ok(())
}

/// Sends one webhook after another until nobody listens any more. Counts the answers; fails if a connection that has had
/// an answer is cut off.
async fn send_until_refused(
    webhooks: SocketAddr,
    keep_alive: bool,
    stopping: &AtomicBool,
    answers: &AtomicUsize,
) -> Result<()> {
    loop {
        let Ok(mut connection) = Connection::open(webhooks).await else {
            anyhow::ensure!(stopping.load(Relaxed), "refused before the end");
            return Ok(());
        };
        let mut answered = 0;
        loop {
            let answer = async {
                connection.send(post(EVENT)).await?;
                connection.response().await
            };
            let answer = match answer.await {
                // The kernel had taken the connection, but Envoy had not. The calls at Segment tell whether that is so.
                Err(_) if answered == 0 && stopping.load(Relaxed) => break,
                answer => answer.with_context(|| format!("cut off after {answered} answers"))?,
            };
            assert_eq!(answer.status, 200, "{answer:?}");
            answers.fetch_add(1, Relaxed);
            answered += 1;
            if !keep_alive || answer.head.contains("connection: close") {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_webhooks_keep_coming_none_is_cut_off_at_the_end() -> Result<()> {
    for (signal, whole_group) in [(Signal::SIGTERM, false), (Signal::SIGINT, true), (Signal::SIGTERM, true)] {
        let segment = Segment::start().await?;
        segment.behave(Behaviour::Accept.after(Duration::from_millis(300)));
        let envoy = start(&segment).await?;
        let (stopping, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for n in 0..CLIENTS {
            let (webhooks, stopping, answers) = (envoy.webhooks, stopping.clone(), answers.clone());
            clients.spawn(async move { send_until_refused(webhooks, n % 2 == 0, &stopping, &answers).await });
        }
        eventually("all have answers", async || Ok(answers.load(Relaxed) > 3 * CLIENTS)).await?;
        stopping.store(true, Relaxed);
        let begin = Instant::now();
        if whole_group {
            envoy.signal_group(signal)?;
            tokio::time::sleep(Duration::from_millis(100)).await; // somebody impatient
            envoy.signal_group(signal)?;
        } else {
            envoy.signal(signal)?;
        }
        assert!(envoy.exited().await?.success(), "{}", envoy.log());
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        for client in clients.join_all().await {
            client?;
        }
        assert_eq!(segment.calls().len(), answers.load(Relaxed), "every call was answered to its sender");
        assert_eq!(segment.accepted().len(), segment.calls().len());
    }
    Ok(())
}

#[tokio::test]
async fn other_admin_addresses_and_stat_prefixes_do_as_well() -> Result<()> {
    let segment = Segment::start().await?;
    segment.behave(Behaviour::Accept.after(Duration::from_secs(2)));
    let Ok(admin) = free_address_at(std::net::Ipv6Addr::LOCALHOST.into()) else {
        skip("the admin interface's IPv6 address needs a machine with IPv6");
        return Ok(());
    };
    let config = Config::sandboxed_with(shell(), &segment)?
        .set(&format!("{HTTP_CONNECTION_MANAGER}/stat_prefix"), json!("edge.eu"))?;
    let envoy = RunEnvoy::start(config, free_address()?, admin).await?;
    let url = envoy.url(PATH);
    let sent = tokio::spawn(async move { Webhook::new(EVENT).secret(SECRET).send(&url).await });
    eventually("it is under way", async || Ok(segment.requests_begun() == 1)).await?;
    envoy.signal(Signal::SIGTERM)?;
    assert_eq!(sent.await??.status, 200);
    assert!(envoy.exited().await?.success());
    Ok(())
}

/// While Envoy waits before it sends a call again, and while it reads a body, it counts no request to Segment.
#[tokio::test]
async fn a_webhook_that_is_sent_again_or_still_comes_in_is_not_cut_off() -> Result<()> {
    let segment = Segment::start().await?;
    segment.script([Behaviour::too_many_requests(2)]);
    let envoy = start(&segment).await?;
    let url = envoy.url(PATH);
    let sent_again = tokio::spawn(async move { Webhook::new(EVENT).secret(SECRET).send(&url).await });
    eventually("Segment has asked to wait", async || Ok(segment.calls().len() == 1)).await?;
    let mut slow = Connection::open(envoy.webhooks).await?;
    let request = post(EVENT);
    let (first, rest) = request.split_at(request.len() - 10);
    slow.send(first).await?;
    let active = "http.webhooks.downstream_rq_active";
    eventually("both are under way", async || Ok(envoy.stat(active).await? == 2)).await?;
    envoy.signal(Signal::SIGTERM)?;
    eventually("it takes no more", async || Ok(Connection::open(envoy.webhooks).await.is_err())).await?;
    assert_eq!(sent_again.await??.status, 200);
    // Nothing else is under way now. The script has looked more than three times when the rest of it comes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    slow.send(rest).await?;
    assert_eq!(slow.response().await?.status, 200);
    assert!(envoy.exited().await?.success(), "{}", envoy.log());
    Ok(())
}

/// Ends Envoy while Segment takes its time for a webhook: it is still answered, and the script says this.
async fn is_said_and_cuts_off_none<const N: usize>(
    segment_takes: Duration,
    change: impl FnOnce(Config) -> Result<Config>,
    variables: [(&str, String); N],
    said: &str,
) -> Result<()> {
    let segment = Segment::start().await?;
    segment.behave(Behaviour::Accept.after(segment_takes));
    let config = change(Config::sandboxed_with(shell(), &segment)?)?;
    let envoy = RunEnvoy::start_with(config, free_address()?, free_address()?, variables).await?;
    let url = envoy.url(PATH);
    let sent = tokio::spawn(async move { Webhook::new(EVENT).secret(SECRET).send(&url).await });
    eventually("it is under way", async || Ok(segment.requests_begun() == 1)).await?;
    envoy.signal(Signal::SIGTERM)?;
    assert_eq!(sent.await??.status, 200);
    assert!(envoy.exited().await?.success(), "{}", envoy.log());
    assert!(envoy.log().contains(said), "{}", envoy.log());
    Ok(())
}

#[tokio::test]
async fn an_admin_interface_elsewhere_is_said_and_cuts_off_no_request() -> Result<()> {
    let variables = [("ADMIN", free_address()?.to_string()), ("DRAIN_SECONDS", "4".to_owned())];
    is_said_and_cuts_off_none(Duration::from_secs(2), Ok, variables, "does not answer at ADMIN=").await
}

/// `stats_matcher` is common where many Envoys are watched.
#[tokio::test]
async fn an_envoy_that_does_not_count_its_requests_is_said_and_cuts_off_none() -> Result<()> {
    let only_these = json!({ "inclusion_list": { "patterns": [{ "prefix": "cluster." }] } });
    let counts_no_requests = |config: Config| config.set("/stats_config/stats_matcher", only_these);
    let variables = [("DRAIN_SECONDS", "2".to_owned())];
    let said = "does not say how many requests it has";
    is_said_and_cuts_off_none(Duration::from_secs(1), counts_no_requests, variables, said).await
}

#[tokio::test]
async fn an_admin_interface_that_never_answers_holds_the_script_no_longer_than_it_says() -> Result<()> {
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?; // the kernel accepts, and nobody answers
    // Stands for an Envoy that hangs: it takes no signal but SIGKILL.
    let mut command = std::process::Command::new(workspace_root().join("deploy/run-envoy"));
    command.args([
        "setpriv",
        "--pdeathsig",
        "KILL",
        "bash",
        "-c",
        "trap '' TERM; echo up; while :; do sleep 0.1; done",
    ]);
    command.env("ADMIN", silent.local_addr()?.to_string()).env("DRAIN_SECONDS", "2");
    let script = Process::spawn(command)?;
    tokio::time::timeout(PATIENCE, script.log().line(|line| line == "up")).await?;
    let begin = Instant::now();
    script.signal(Signal::SIGTERM)?;
    let status = tokio::time::timeout(PATIENCE, script.exited()).await?;
    assert!(!status.success(), "it was killed");
    assert!(begin.elapsed() < Duration::from_secs(2 + 5 + 2), "{:?}", begin.elapsed());
    assert!(script.log().text().contains("does not answer"), "{}", script.log().text());
    Ok(())
}
