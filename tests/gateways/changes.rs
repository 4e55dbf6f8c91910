//! The manifest's objects come, go and change while webhooks come: none that is not mapped reaches Segment, and Stigg is told
//! what became of each.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use sandbox::envoy::Shell;
use sandbox::segment::{HOSTS, Segment, Transport};
use serde_json::{Value, json};
use tests::edge::*;
use tests::manifests::Manifests;
use tests::openings::{ELSEWHERE, MARK, UNENCRYPTED, is_addressed_to_segment};
use tokio::task::JoinSet;

use crate::gateway::{FILE, Gateway, segment, server, trust};

/// Webhooks, and what their sender was told.
pub struct Load {
    sent: Sent,
    _senders: JoinSet<()>,
}

/// Each with the status of its answer, if it has one.
type Sent = Arc<Mutex<Vec<(Webhook, Option<u16>)>>>;

/// What is sent. Only the first kind may reach Segment.
#[derive(Debug, Clone, PartialEq)]
pub enum Webhook {
    /// An event about a customer, with this number.
    Mapped(usize),
    /// An event that is not about a customer.
    Ignored,
    /// Not JSON.
    Malformed,
    /// An event with a wrong secret, and with the header by which the filter marks an admitted event.
    Stranger,
}

const WRONG: &str = "whsec-wrong";
/// In each webhook that must not reach Segment.
const PRIVATE: &str = "private";

impl Webhook {
    fn request(&self) -> String {
        match self {
            Self::Mapped(n) => post(&EVENT.replace("m-1", &format!("m-{n}-"))),
            Self::Ignored => post(&CATALOG_EVENT.replace("m-2", PRIVATE)),
            Self::Malformed => post(&EVENT.replace("m-1", PRIVATE).replace('}', "")),
            Self::Stranger => {
                let request = post(&EVENT.replace("m-1", PRIVATE)).replace(SECRET, WRONG);
                request.replace("host: edge\r\n", &format!("host: edge\r\n{}: {}\r\n", MARK.0, MARK.1))
            }
        }
    }
}

impl Load {
    /// Sends webhooks of every kind from now on.
    pub fn start(proxy: SocketAddr) -> Self {
        let sent = Sent::default();
        let count = Arc::new(AtomicUsize::new(0));
        let mut senders = JoinSet::new();
        for _ in 0..4 {
            let (sent, count) = (sent.clone(), count.clone());
            senders.spawn(async move {
                loop {
                    let n = count.fetch_add(1, Ordering::Relaxed);
                    for webhook in [Webhook::Mapped(n), Webhook::Ignored, Webhook::Malformed, Webhook::Stranger] {
                        let status = send(proxy, &webhook).await.ok();
                        sent.lock().unwrap().push((webhook, status));
                        tokio::time::sleep(Duration::from_millis(if status.is_some() { 10 } else { 20 })).await;
                    }
                }
            });
        }
        Self { sent, _senders: senders }
    }

    /// Waits until some more have been answered, or could not be sent.
    pub async fn go_on(&self) -> Result<()> {
        let until = self.sent.lock().unwrap().len() + 40;
        eventually("more webhooks", async || Ok(self.sent.lock().unwrap().len() >= until)).await
    }

    /// Waits until the last webhooks of a kind were answered so.
    async fn all(&self, what: &str, holds: impl Fn(&Webhook, Option<u16>) -> bool) -> Result<()> {
        let settled = async || {
            let sent = self.sent.lock().unwrap();
            Ok(sent.iter().rev().take(24).all(|(webhook, status)| holds(webhook, *status)))
        };
        self.go_on().await?;
        let last = || format!("{:?}", self.sent.lock().unwrap().iter().rev().take(8).collect::<Vec<_>>());
        eventually(what, settled).await.with_context(last)
    }

    /// Waits until webhooks are served.
    pub async fn served(&self) -> Result<()> {
        self.all("webhooks are served", |webhook, status| {
            status
                == Some(match webhook {
                    Webhook::Mapped(_) => 200,
                    Webhook::Ignored => 204,
                    Webhook::Malformed => 400,
                    Webhook::Stranger => 401,
                })
        })
        .await
    }

    /// Waits until all are answered so.
    pub async fn rejected(&self, status: u16) -> Result<()> {
        self.all(&format!("all are answered {status}"), |_, answered| answered == Some(status)).await
    }

    /// Checks all of them. `ledger` is where those that became calls went. Returns how many of these went to another path
    /// or host than Segment's, and how many connections were not encrypted.
    pub fn check(&self, ledger: &Segment) -> Result<BTreeMap<&'static str, usize>> {
        let calls = ledger.calls();
        let mut accepted = HashSet::new();
        for call in &calls {
            let body = String::from_utf8_lossy(&call.body);
            ensure!(body.starts_with("{\"") && body.contains("\"properties\":") && !body.contains(PRIVATE), "{call:?}");
            ensure!(call.write_key.as_deref() == Some(WRITE_KEY), "{call:?}");
            ensure!(!format!("{call:?}").contains("whsec"), "a secret: {call:?}");
            // What comes before names the source, unless that is left out.
            let id = call.json()["messageId"].as_str().and_then(|id| id.split_once("-m-")).map(|(_, n)| n.to_owned());
            accepted.extend(id.filter(|_| call.accepted));
        }
        for (webhook, status) in self.sent.lock().unwrap().iter() {
            let Some(status @ 200..300) = *status else { continue };
            let right = match webhook {
                Webhook::Mapped(n) => status == 200 && accepted.contains(&format!("{n}-")),
                Webhook::Ignored => status == 204,
                Webhook::Malformed | Webhook::Stranger => false,
            };
            ensure!(right, "{webhook:?} was answered {status}");
        }
        let elsewhere = calls.iter().filter(|call| !is_addressed_to_segment(call)).count();
        Ok([(ELSEWHERE, elsewhere), (UNENCRYPTED, ledger.unencrypted())].into())
    }

    /// Checks that all is right with them.
    pub fn all_right(&self, ledger: &Segment) -> Result<()> {
        let open = self.check(ledger)?;
        ensure!(open.values().all(|count| *count == 0), "{open:?}");
        Ok(())
    }
}

/// Sends one, and returns the status of its answer.
pub async fn send(proxy: SocketAddr, webhook: &Webhook) -> Result<u16> {
    let mut connection = Connection::open(proxy).await?;
    connection.send(webhook.request()).await?;
    Ok(connection.response().await?.status)
}

async fn nothing_leaks_while_it_changes(shell: Shell) -> Result<()> {
    let mut gateway = Gateway::prepare(shell).await?;
    let segment = segment().await?;
    let mut process = gateway.run_and_watch().await?;
    let proxy = gateway.proxy().await?;
    let load = Load::start(proxy);
    let objects = gateway.manifests.0.clone();

    // One at a time, in several orders.
    let reversed: Vec<_> = objects.iter().rev().cloned().collect();
    let middle = objects.len() / 2;
    let turned = [&objects[middle..], &objects[..middle]].concat();
    for order in [&objects, &reversed, &turned] {
        for object in order {
            gateway.apply(object)?;
            gateway.settled(proxy).await?;
            load.go_on().await?;
        }
        load.served().await.with_context(|| process.log().text())?;
        for object in order {
            gateway.delete(object)?;
            gateway.settled(proxy).await?;
            load.go_on().await?;
        }
        load.all_right(&segment)?;
    }

    // The policy goes, comes back, and is wrong.
    objects.iter().try_for_each(|object| gateway.apply(object))?;
    load.served().await?;
    let policy = gateway.manifests.the("EnvoyExtensionPolicy")?.clone();
    gateway.delete(&policy)?;
    load.rejected(503).await?;
    gateway.apply(&policy)?;
    load.served().await?;
    let with = |path: &str, value: Value| {
        let mut wrong = policy.clone();
        *wrong.pointer_mut(path).context(path.to_owned())? = value;
        anyhow::Ok(wrong)
    };
    let (place, missing) = match shell {
        Shell::Wasm => ("/spec/wasm/0/code/image/url", json!("127.0.0.1:1/missing:1")),
        Shell::Native => ("/spec/dynamicModule/0/name", json!("missing")),
    };
    if shell == Shell::Wasm {
        let tagged = policy.pointer(place).and_then(Value::as_str).context("no image")?;
        let (image, _) = tagged.rsplit_once(':').context("no tag")?;
        gateway.apply(&with(place, json!(format!("{image}@{}", gateway.digest)))?)?;
        load.served().await.context("pinned by its digest")?;
    }
    for (wrong, status) in [(with(place, missing)?, 500), (with("/spec/targetRefs/0/name", json!("missing"))?, 503)] {
        gateway.apply(&wrong)?;
        load.rejected(status).await?;
        gateway.apply(&policy)?;
        load.served().await?;
        load.all_right(&segment)?;
    }

    // The gateway starts again, without its registry.
    gateway.registry.take();
    process.signal(Signal::SIGTERM)?;
    process.exited().await;
    process = gateway.run()?;
    load.all("there are answers again", |_, status| status.is_some()).await.with_context(|| process.log().tail())?;
    load.all_right(&segment)
}

/// The paths of all parts of a value, but for itself.
pub fn parts(value: &Value, path: &str, found: &mut Vec<String>) {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(object) => object.iter().map(|(key, value)| (key.replace('/', "~1"), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(n, value)| (n.to_string(), value)).collect(),
        _ => return,
    };
    for (key, value) in inner {
        let path = format!("{path}/{key}");
        parts(value, &path, found);
        found.push(path);
    }
}

/// A manifest without one of its parts.
pub fn without(manifest: &Value, path: &str) -> Result<Value> {
    let (parent, key) = path.rsplit_once('/').context("a path")?;
    let mut less = manifest.clone();
    match less.pointer_mut(parent).context("a parent")? {
        Value::Object(object) => drop(object.remove(&key.replace("~1", "/"))),
        Value::Array(list) => drop(list.remove(key.parse()?)),
        _ => {}
    }
    Ok(less)
}

/// What is open without a part, or one around or in it, and what the page on deployment says about it.
const KNOWN: [(&str, &str, &str); 2] =
    [("HTTPRoute", "/spec/rules/0/filters/0", ELSEWHERE), ("Backend", "/spec/tls", UNENCRYPTED)];

/// Leaves out each part of these objects in turn, while webhooks come. Returns how many parts there are, and how many of
/// them opened what is known.
async fn nothing_leaks_without_any_one_part(
    gateway: Gateway,
    is_one: impl Fn(&Value) -> bool,
) -> Result<(usize, usize)> {
    let segment = segment().await?;
    let process = gateway.run_and_watch().await?;
    gateway.manifests.0.iter().try_for_each(|object| gateway.apply(object))?;
    let proxy = gateway.proxy().await?;
    let load = Load::start(proxy);
    load.served().await.with_context(|| process.log().text())?;
    let mut before = load.check(&segment)?;
    let (mut left_out, mut settled, mut opened) = (0, 0, 0);
    for object in gateway.manifests.0.iter().filter(|object| is_one(object)) {
        let kind = object["kind"].as_str().context("a kind")?;
        let mut paths = Vec::new();
        parts(&object["spec"], "/spec", &mut paths);
        for path in &paths {
            gateway.replace(&process, &without(object, path)?).await?;
            settled += usize::from(gateway.settled(proxy).await?);
            load.go_on().await?;
            left_out += 1;
            let what = || format!("without {path} of {kind}");
            let around = |known: &str| path.starts_with(known) || known.starts_with(path);
            if let Some((_, _, opening)) = KNOWN.iter().find(|(of, known, _)| *of == kind && around(known)) {
                gateway.apply(object)?;
                load.served().await.with_context(what)?;
                let now = load.check(&segment).with_context(what)?;
                opened += usize::from(now.get(opening) > before.get(opening));
                before.extend(now.get_key_value(opening));
            }
            let now = load.check(&segment).with_context(what)?;
            ensure!(now == before, "{}: {now:?}, not {before:?}", what());
        }
        gateway.apply(object)?;
        load.served().await.with_context(|| format!("{kind} is back: {}", process.log().tail()))?;
    }
    eprintln!(
        "{left_out} parts left out; {settled} times there was a way through the gateway; {opened} known openings"
    );
    ensure!(settled > left_out / 2, "{settled} of {left_out}");
    Ok((left_out, opened))
}

#[tokio::test]
async fn nothing_leaks_without_any_one_part_of_the_manifest() -> Result<()> {
    let (left_out, opened) = nothing_leaks_without_any_one_part(Gateway::prepare(Shell::Wasm).await?, |_| true).await?;
    assert!(left_out > 150 && opened > 3, "{left_out} {opened}");
    Ok(())
}

/// Leaves out each part of the objects that differ in a variant.
async fn nothing_leaks_without_any_one_part_of(variant: &str, gateway: Gateway) -> Result<()> {
    let shipped = Manifests::read(FILE)?.0;
    let variant = Manifests::variant(FILE, &[variant])?.0;
    let differs = |object: &Value| {
        variant.iter().any(|own| own["kind"] == object["kind"] && own["kind"] != "ConfigMap" && !shipped.contains(own))
    };
    let (left_out, opened) = nothing_leaks_without_any_one_part(gateway, differs).await?;
    assert!(left_out > 50 && opened == 0, "{left_out} {opened}");
    Ok(())
}

#[tokio::test]
async fn nothing_leaks_without_any_one_part_for_the_dynamic_module() -> Result<()> {
    nothing_leaks_without_any_one_part_of("native", Gateway::prepare(Shell::Native).await?).await
}

#[tokio::test]
async fn nothing_leaks_without_any_one_part_of_what_reads_the_files() -> Result<()> {
    nothing_leaks_without_any_one_part_of("sds", Gateway::prepare_with_files(Shell::Wasm).await?).await
}

/// A server that cannot prove to be Segment, whatever part of the Backend is missing.
#[tokio::test]
async fn no_impostor_gets_calls_from_envoy_gateway() -> Result<()> {
    // By an unknown authority, and under another name.
    for (name, is_trusted) in [(HOSTS[0], false), ("example.com", true)] {
        let gateway = Gateway::prepare(Shell::Wasm).await?;
        let impostor = server(Transport::tls_for([name])).await?;
        if is_trusted {
            trust(&impostor)?;
        }
        let process = gateway.run_and_watch().await?;
        gateway.manifests.0.iter().try_for_each(|object| gateway.apply(object))?;
        let proxy = gateway.proxy().await?;
        let load = Load::start(proxy);
        let fails = |webhook: &Webhook, status| !matches!(webhook, Webhook::Mapped(_)) || status == Some(503);
        load.all("calls fail", fails).await.with_context(|| process.log().tail())?;
        let backend = gateway.manifests.the("Backend")?;
        let mut paths = Vec::new();
        parts(&backend["spec"], "/spec", &mut paths);
        for path in paths {
            gateway.replace(&process, &without(backend, &path)?).await?;
            gateway.settled(proxy).await?;
            load.go_on().await?;
            assert_eq!(impostor.requests_begun(), 0, "{name} without {path}");
        }
        let mut trusting = backend.clone();
        trusting["spec"]["tls"] = json!({ "insecureSkipVerify": true });
        gateway.replace(&process, &trusting).await?;
        eventually("it gets calls", async || Ok(impostor.requests_begun() > 0)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn nothing_leaks_while_the_manifest_changes() -> Result<()> {
    nothing_leaks_while_it_changes(Shell::Wasm).await
}

#[tokio::test]
async fn nothing_leaks_while_the_manifest_for_the_dynamic_module_changes() -> Result<()> {
    nothing_leaks_while_it_changes(Shell::Native).await
}
