//! Many replicas: one rate limit for all, by Envoy's own rate limit service and a Redis, and the shares of a fixed number.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use sandbox::envoy::{Config, Envoy, HTTP_CONNECTION_MANAGER, LISTENER, Options, SEGMENT_CLUSTER, workspace_root};
use sandbox::process::Process;
use sandbox::segment::{Behaviour, Segment};
use serde_json::json;
use tempfile::TempDir;
use tests::edge::*;
use tests::manifests::Manifests;
use tests::run_envoy::free_address;
use tests::tools::tool;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Far below what this machine can take, so that only the limit holds webhooks back.
const LIMIT: usize = 200;

/// The limit of all replicas together, a second.
const LIMIT_OF_ALL: usize = 1000;

/// Envoy's rate limit service with deploy/ratelimit.yaml and its Redis.
struct RateLimit {
    redis: Option<Process>,
    service: Option<Process>,
    address: SocketAddr,
    _folder: TempDir,
}

impl RateLimit {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (redis_at, address) = (free_address()?, free_address()?);
        let mut redis = tool("redis-server")?;
        redis.args(["--bind", &redis_at.ip().to_string(), "--save", "", "--port", &redis_at.port().to_string()]);
        let redis = Process::spawn(redis)?;
        let config = folder.path().join("limits/config");
        fs::create_dir_all(&config)?;
        let shipped = fs::read_to_string(workspace_root().join("deploy/ratelimit.yaml"))?;
        let lowered = shipped.replace("requests_per_unit: 1000", &format!("requests_per_unit: {LIMIT}"));
        assert_ne!(lowered, shipped);
        fs::write(config.join("ratelimit.yaml"), lowered)?;
        let mut service = tool("ratelimit")?;
        service
            .envs([("REDIS_SOCKET_TYPE", "tcp"), ("RUNTIME_SUBDIRECTORY", "limits"), ("RUNTIME_WATCH_ROOT", "false")])
            .envs([("DISABLE_STATS", "true"), ("LOG_LEVEL", "warn"), ("HOST", "127.0.0.1")])
            .env("GRPC_HOST", address.ip().to_string())
            .env("REDIS_URL", redis_at.to_string())
            .env("RUNTIME_ROOT", folder.path())
            .env("GRPC_PORT", address.port().to_string())
            .envs([("PORT", "0"), ("DEBUG_PORT", "0")]);
        eventually("Redis is up", async || Ok(Connection::open(redis_at).await.is_ok())).await?;
        let service = Process::spawn(service)?;
        let is_up = async || Ok(Connection::open(address).await.is_ok());
        eventually("the rate limit service is up", is_up).await.with_context(|| service.log().tail())?;
        Ok(Self { redis: Some(redis), service: Some(service), address, _folder: folder })
    }
}

/// Envoys of a rendering of the chart in front of one Segment, with secrets in place.
struct Replicas {
    envoys: Vec<Envoy>,
    segment: Segment,
}

impl Replicas {
    async fn start(count: usize, values: &[&str], change: impl Fn(Config) -> Result<Config>) -> Result<Self> {
        let chart = Manifests::chart(values)?;
        let text = chart.the("ConfigMap")?["data"]["envoy.yaml"].as_str().context("a text")?.to_owned();
        let segment = Segment::start().await?;
        let mut envoys = Vec::new();
        for _ in 0..count {
            let config = Config::from_yaml(&text)?.module(&Config::shipped()?.module_file()?)?;
            let config = config.remove(&format!("{HTTP_CONNECTION_MANAGER}/http_filters/secrets"))?;
            let config = config.edit_plugin_configuration(|own| {
                own["webhook_secret"] = json!({ "value": SECRET });
                own["write_key"] = json!({ "value": WRITE_KEY });
            })?;
            let config = change(config.on_loopback()?.upstream(&segment)?)?;
            envoys.push(Envoy::start(config, Options::default()).await?);
        }
        Ok(Self { envoys, segment })
    }

    /// Sends so many webhooks a second over connections to these replicas, evenly, and returns how many answers of each
    /// status came.
    async fn send(&self, connections: &[usize], per_second: usize, seconds: f64) -> Result<BTreeMap<u16, usize>> {
        let start = Instant::now();
        let every = Duration::from_secs_f64(connections.len() as f64 / per_second as f64);
        let count = connections.len();
        let mut senders = JoinSet::new();
        for (n, replica) in connections.iter().enumerate() {
            let mut connection = Connection::open(self.envoys[*replica].addr(LISTENER).context("no listener")?).await?;
            senders.spawn(async move {
                let mut answers = BTreeMap::<u16, usize>::new();
                let mut next = start + every.mul_f64(n as f64 / count as f64);
                while next < start + Duration::from_secs_f64(seconds) {
                    sleep_until(next).await;
                    connection.send(post(EVENT)).await?;
                    *answers.entry(connection.response().await?.status).or_default() += 1;
                    next += every;
                }
                anyhow::Ok(answers)
            });
        }
        let mut all = BTreeMap::<u16, usize>::new();
        while let Some(sender) = senders.join_next().await {
            for (status, count) in sender?? {
                *all.entry(status).or_default() += count;
            }
        }
        Ok(all)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_envoys_share_one_rate_limit_and_go_on_without_it() -> Result<()> {
    const SECONDS: usize = 6;
    let mut limit = RateLimit::start().await?;
    let values = ["autoscaling.enabled=true", &format!("rateLimit.service={}", limit.address)];
    let replicas = Replicas::start(3, &values, Ok).await?;
    let connections = [0, 0, 0, 0, 1, 1, 1, 2, 2];
    let answers = replicas.send(&connections, 2 * LIMIT, SECONDS as f64).await?;
    let mut late = 0; // the service's answers, on a busy machine; these webhooks go on
    for envoy in &replicas.envoys {
        late += usize::try_from(envoy.stat("cluster.segment.ratelimit.error").await?)?;
    }
    println!("limit {LIMIT}/s, load {}/s for {SECONDS} s: {answers:?}, of which {late} late", 2 * LIMIT);
    assert!(late < LIMIT * SECONDS / 4, "{late} late");
    // The service counts in whole seconds, and the load may begin and end within one.
    assert!((LIMIT * (SECONDS - 1)..=LIMIT * (SECONDS + 1) + late).contains(&answers[&200]), "{answers:?}");
    assert!(answers.keys().all(|status| [200, 429].contains(status)), "{answers:?}");
    assert_eq!(replicas.segment.accepted_count(), answers[&200]);
    for envoy in &replicas.envoys {
        let alerted = "envoy_cluster_ratelimit_over_limit{envoy_cluster_name=\"segment\"}"; // as deploy/alerts.yaml has it
        assert!(envoy.admin_get("/stats/prometheus").await?.contains(alerted));
    }

    for what in ["Redis", "the service"] {
        let stopped = if what == "Redis" { limit.redis.take() } else { limit.service.take() };
        drop(stopped.context("it ran")?);
        let answers = replicas.send(&connections, 2 * LIMIT, 3.0).await?;
        println!("without {what}: {answers:?}");
        assert!(answers.len() == 1 && answers[&200] > LIMIT * 3, "without {what}: {answers:?}");
    }
    Ok(())
}

/// A tenth of a replica's share, so that any machine can send as much.
fn tenth_of_the_share(config: Config) -> Result<Config> {
    let bucket = format!("{HTTP_CONNECTION_MANAGER}/http_filters/local_ratelimit/typed_config/token_bucket");
    let mut tokens = config.get(&bucket)?.clone();
    for field in ["max_tokens", "tokens_per_fill"] {
        tokens[field] = json!(tokens[field].as_u64().context("a number")? / 10);
    }
    config.set(&bucket, tokens)
}

/// Few connections do not spread evenly. Each replica takes its share and, once, a burst of one or two
/// of it more.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_let_through_their_shares_however_connections_spread() -> Result<()> {
    const SECONDS: usize = 8;
    const SENT: usize = 100; // a second: a tenth of the limit
    for count in [2, 3] {
        let value = format!("replicas={count}");
        let share = LIMIT_OF_ALL * 16 / 10 / count / 10;
        for connections in [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 2]] {
            let led_to = |replica| connections.iter().filter(|it| **it == replica).count();
            if led_to(count) > 0 {
                continue;
            }
            let replicas = Replicas::start(count, &[&value], tenth_of_the_share).await?;
            let answers = replicas.send(&connections, SENT, SECONDS as f64).await?;
            println!(
                "{count} replicas, connections to {connections:?}: {answers:?} of {SENT} a second for {SECONDS} s"
            );
            let taken = |replica| (led_to(replica) * SENT / 4 * SECONDS).min(share * (2 * SECONDS + 3) / 2);
            let expected: usize = (0..count).map(taken).sum();
            let passed = answers[&200];
            assert!(passed.abs_diff(expected) < expected / 10, "{connections:?}: {expected} expected: {answers:?}");
        }
    }
    Ok(())
}

/// With the fewest replicas, however the connections spread. Segment is as fast as it can be here. At a tenth of the shares, 80
/// a second stand for 800.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_tenth_of_their_shares_two_replicas_take_a_steady_80_webhooks_a_second() -> Result<()> {
    for connections in [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]] {
        let replicas = Replicas::start(2, &[], tenth_of_the_share).await?;
        let answers = replicas.send(&connections, 80, 8.0).await?;
        assert!(answers.len() == 1 && answers[&200] > 600, "{connections:?}: {answers:?}");
    }
    Ok(())
}

/// A tenth of all numbers, again: at 800 webhooks a second, 1,024 calls are under way when Segment takes 1.28 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_segment_fills_the_calls_under_way_first() -> Result<()> {
    let tenth = |config: Config| {
        let thresholds = format!("{SEGMENT_CLUSTER}/circuit_breakers/thresholds/0");
        config.set(&format!("{thresholds}/max_requests"), json!(102))
    };
    for (seconds, is_full) in [(0.8, false), (2.0, true)] {
        let replicas = Replicas::start(1, &[], tenth).await?;
        replicas.segment.behave(Behaviour::Accept.after(Duration::from_secs_f64(seconds)));
        let answers = replicas.send(&[0; 240], 80, 6.0).await?;
        let overflow = replicas.envoys[0].stat("cluster.segment.upstream_rq_active_overflow").await?;
        println!("Segment takes {seconds} s: {answers:?}, {overflow} overflows");
        assert_eq!((answers.contains_key(&503), overflow > 0), (is_full, is_full), "{seconds}: {answers:?}");
    }
    Ok(())
}
