//! The manifest's objects come, go and change while webhooks come: none that is not mapped reaches Segment, and Stigg is told
//! what became of each.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use sandbox::envoy::Shell;
use sandbox::segment::Segment;
use serde_json::{Value, json};
use tests::edge::*;
use tokio::task::JoinSet;

use crate::gateway::{Gateway, segment};

/// Webhooks, and what their sender was told.
pub struct Load {
    sent: Arc<Mutex<Vec<(Webhook, Option<u16>)>>>,
    _senders: JoinSet<()>,
}

/// What is sent. Only the first kind may reach Segment.
#[derive(Debug, Clone, PartialEq)]
pub enum Webhook {
    /// An event about a customer, with this number.
    Mapped(usize),
    /// An event that is not about a customer.
    Ignored,
    /// Not JSON.
    Malformed,
    /// An event with a wrong secret.
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
            Self::Stranger => post(&EVENT.replace("m-1", PRIVATE)).replace(SECRET, WRONG),
        }
    }
}

impl Load {
    /// Sends webhooks of every kind from now on.
    pub fn start(proxy: SocketAddr) -> Self {
        let sent = Arc::<Mutex<Vec<_>>>::default();
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
                        tokio::time::sleep(Duration::from_millis(if status.is_some() { 1 } else { 20 })).await;
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
        eventually(what, settled).await
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

    /// Checks all of them. `ledger` is where those that became calls went.
    pub fn check(&self, ledger: &Segment) -> Result<()> {
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
        Ok(())
    }
}

async fn send(proxy: SocketAddr, webhook: &Webhook) -> Result<u16> {
    let mut connection = Connection::open(proxy).await?;
    connection.send(webhook.request()).await?;
    Ok(connection.response().await?.status)
}

async fn nothing_leaks_while_it_changes(shell: Shell) -> Result<()> {
    let mut gateway = Gateway::prepare(shell).await?;
    let segment = segment().await?;
    let mut process = gateway.run()?;
    process.log().line(|line| line.contains("Watching path added")).await; // it sees no change before
    let load = Load::start(gateway.proxy().await?);
    let objects = gateway.manifests.0.clone();

    // One at a time, in several orders.
    let reversed: Vec<_> = objects.iter().rev().cloned().collect();
    let middle = objects.len() / 2;
    let turned = [&objects[middle..], &objects[..middle]].concat();
    for order in [&objects, &reversed, &turned] {
        for object in order {
            gateway.apply(object)?;
            load.go_on().await?;
        }
        load.served().await.with_context(|| process.log().text())?;
        for object in order {
            gateway.delete(object)?;
            load.go_on().await?;
        }
        load.check(&segment)?;
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
        load.check(&segment)?;
    }

    // The gateway starts again, without its registry.
    gateway.registry.take();
    process.signal(Signal::SIGTERM)?;
    process.exited().await;
    process = gateway.run()?;
    load.all("there are answers again", |_, status| status.is_some()).await.with_context(|| process.log().tail())?;
    load.check(&segment)
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

/// Leaves out each part of these objects in turn, while webhooks come. Returns how many parts there are.
async fn nothing_leaks_without_any_one_part(gateway: Gateway, is_one: impl Fn(&Value) -> bool) -> Result<usize> {
    let segment = segment().await?;
    let process = gateway.run()?;
    process.log().line(|line| line.contains("Watching path added")).await;
    gateway.manifests.0.iter().try_for_each(|object| gateway.apply(object))?;
    let load = Load::start(gateway.proxy().await?);
    load.served().await.with_context(|| process.log().text())?;
    let mut left_out = 0;
    for object in gateway.manifests.0.iter().filter(|object| is_one(object)) {
        let mut paths = Vec::new();
        parts(&object["spec"], "/spec", &mut paths);
        for path in &paths {
            let mut position = process.log().text().len();
            gateway.apply(&without(object, path)?)?;
            // It reads all files again, and then rejects what it cannot read, or tells Envoy.
            let read = |line: &str| line.contains("reload resources finished") || line.contains("error when reload");
            let read = process.log().line_after(&mut position, read);
            tokio::time::timeout(PATIENCE, read).await.with_context(|| format!("{path} is not read"))?;
            load.go_on().await?;
            load.check(&segment).with_context(|| format!("without {path} of {}", object["kind"]))?;
            left_out += 1;
        }
        gateway.apply(object)?;
        load.served().await.with_context(|| format!("{} is back: {}", object["kind"], process.log().tail()))?;
    }
    Ok(left_out)
}

#[tokio::test]
async fn nothing_leaks_without_any_one_part_of_the_manifest() -> Result<()> {
    let left_out = nothing_leaks_without_any_one_part(Gateway::prepare(Shell::Wasm).await?, |_| true).await?;
    assert!(left_out > 100, "{left_out}");
    Ok(())
}

#[tokio::test]
async fn nothing_leaks_without_any_one_part_of_what_reads_the_files() -> Result<()> {
    let gateway = Gateway::prepare_with_files(Shell::Wasm).await?;
    let differ =
        |object: &Value| ["EnvoyPatchPolicy", "EnvoyExtensionPolicy"].iter().any(|kind| object["kind"] == *kind);
    let left_out = nothing_leaks_without_any_one_part(gateway, differ).await?;
    assert!(left_out > 30, "{left_out}");
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
