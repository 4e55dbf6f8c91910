//! nginx in front of the shipped `envoy.yaml`: as Debian's package is set, and as the page on deployment says.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sandbox::envoy::{Envoy, ROUTE};
use sandbox::process::Process;
use sandbox::segment::Behaviour;
use sandbox::stigg::{Reply, Webhook};
use serde_json::json;
use tempfile::TempDir;
use tests::edge::*;
use tests::pages::blocks;
use tests::run_envoy::free_address;
use tests::tools::tool;

/// A running nginx. Dropping it ends it.
struct Nginx {
    process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    /// Starts it with these servers, and waits until it listens.
    async fn start(servers: &str, address: SocketAddr) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = folder.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {at}/{what};\n"))
            .concat();
        let settings = format!(
            "daemon off; master_process off; pid {at}/pid; error_log stderr;\n\
             events {{}}\nhttp {{\naccess_log off;\n{temporary}{servers}\n}}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, settings)?;
        let mut command = tool("nginx")?;
        command.args(["-e", "stderr", "-c"]).arg(file);
        let process = Process::spawn(command).context("there is no nginx: run `make tools`")?;
        let listens = async || {
            let ended = tokio::time::timeout(Duration::ZERO, process.exited()).await.is_ok();
            ensure!(!ended, "nginx ended: {}", process.log().text());
            Ok(Connection::open(address).await.is_ok())
        };
        eventually("nginx listens", listens).await?;
        Ok(Self { process, address, _folder: folder })
    }

    async fn send(&self, webhook: Webhook) -> Result<Reply> {
        let reply = webhook.secret(SECRET).send(&format!("http://{}{PATH}", self.address)).await;
        reply.with_context(|| self.process.log().text())
    }
}

/// An Envoy on `envoy.yaml` whose route gives up on Segment soon, and an nginx in front of it.
async fn start(servers: impl FnOnce(SocketAddr, SocketAddr) -> Result<String>) -> Result<(Edge, Nginx)> {
    let edge = Edge::start_with(|config| config.set(&format!("{ROUTE}/route/timeout"), json!("1s"))).await?;
    let address = free_address()?;
    let envoy = edge.envoy.addr(sandbox::envoy::LISTENER).context("no listener")?;
    Ok((edge, Nginx::start(&servers(address, envoy)?, address).await?))
}

/// Nothing but where to send.
fn as_installed(address: SocketAddr, envoy: SocketAddr) -> Result<String> {
    Ok(format!("server {{ listen {address}; location / {{ proxy_pass http://{envoy}; }} }}"))
}

/// The block on the page.
fn as_documented(address: SocketAddr, envoy: SocketAddr) -> Result<String> {
    let mut blocks = blocks("docs/deployment.md")?.into_iter().filter(|block| block.kind == "nginx");
    let mut text = blocks.next().context("the page has no block for nginx")?.text;
    for (on_the_page, here) in [("listen 80;", format!("listen {address};")), ("127.0.0.1:10000", envoy.to_string())] {
        ensure!(text.contains(on_the_page), "the page does not say {on_the_page}");
        text = text.replace(on_the_page, &here);
    }
    Ok(text)
}

/// Every answer gets through, and every event arrives as it was sent.
async fn is_transparent(edge: &Edge, nginx: &Nginx) -> Result<()> {
    let event = |bytes: usize| format!(r#"{{"type":"plan.created","x":"{}"}}"#, "x".repeat(bytes));
    for (webhook, status, code) in [
        (Webhook::new(CATALOG_EVENT), 204, None),
        (Webhook::new(EVENT).secret("wrong"), 401, Some("unauthorized")),
        (Webhook::new("{"), 400, Some("malformed_json")),
        (Webhook::new("").without_header("content-type").method("GET".parse()?), 405, Some("method_not_allowed")),
        (Webhook::new(event(if rejects_large_bodies().await? { 30 } else { 500 } * 1024)), 204, None),
        (Webhook::new(event(600 * 1024)), 413, Some("body_too_large")),
    ] {
        let reply = nginx.send(webhook).await?;
        assert_eq!((reply.status, reply.json()["code"].as_str()), (status, code), "{reply:?}");
        match code {
            None => assert_eq!((reply.header("transfer-encoding"), reply.text().as_str()), (None, "")),
            Some(_) => assert_eq!(reply.header("content-type"), Some("application/json")),
        }
    }
    // Over nginx's own limit, 1 MiB.
    let reply = nginx.send(Webhook::new(event(2 * 1024 * 1024))).await?;
    assert_eq!((reply.status, reply.header("content-type")), (413, Some("text/html")));
    assert_eq!(edge.segment.connections(), 0);

    for body in [post(EVENT), post_chunked(EVENT, 7)] {
        let mut connection = Connection::open(nginx.address).await?;
        connection.send(body).await?;
        assert_eq!(connection.response().await?.status, 200);
    }
    let calls = edge.segment.calls();
    assert_eq!(calls.len(), 2);
    for call in calls {
        assert!(call.body.ends_with(format!("\"properties\":{EVENT}}}").as_bytes()), "{call:?}");
        // Nothing that nginx adds, such as the client's address, gets there.
        let mut names: Vec<_> = call.headers.keys().map(|name| name.as_str()).filter(|name| *name != "host").collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "content-length", "content-type", "user-agent", "x-request-id"]);
    }

    // Envoy gives up, and nginx passes that on.
    edge.segment.behave(Behaviour::Accept.after(PATIENCE));
    let reply = nginx.send(Webhook::new(EVENT)).await?;
    assert_eq!((reply.status, reply.json()["code"].as_str()), (504, Some("unavailable")), "{reply:?}");
    edge.segment.behave(Behaviour::Accept);
    Ok(())
}

/// The protocol of the last request in Envoy's access log.
async fn protocol(envoy: &Envoy, code: &str) -> Result<String> {
    let line = envoy.wait_for_line(|line| line.starts_with('{') && line.contains(code), PATIENCE).await?;
    Ok(serde_json::from_str::<serde_json::Value>(&line)?["protocol"].as_str().context("no protocol")?.to_owned())
}

#[tokio::test]
async fn an_nginx_that_is_told_only_where_to_send_passes_every_webhook_on() -> Result<()> {
    let (edge, nginx) = start(as_installed).await?;
    is_transparent(&edge, &nginx).await?;
    assert_eq!(protocol(&edge.envoy, "stigg_segment_no_customer").await?, "HTTP/1.0");
    Ok(())
}

#[tokio::test]
async fn the_nginx_of_the_page_passes_every_webhook_on_and_keeps_its_connections() -> Result<()> {
    let (edge, nginx) = start(as_documented).await?;
    for _ in 0..3 {
        assert_eq!(nginx.send(Webhook::new(CATALOG_EVENT)).await?.status, 204);
    }
    assert_eq!(edge.envoy.stat("http.webhooks.downstream_cx_total").await?, 1);
    is_transparent(&edge, &nginx).await?;
    assert_eq!(protocol(&edge.envoy, "stigg_segment_no_customer").await?, "HTTP/1.1");
    Ok(())
}

#[tokio::test]
async fn an_nginx_that_does_not_wait_for_the_whole_body_passes_every_webhook_on() -> Result<()> {
    let (edge, nginx) = start(|address, envoy| {
        let servers = as_documented(address, envoy)?;
        Ok(servers.replace("proxy_http_version", "proxy_request_buffering off; proxy_http_version"))
    })
    .await?;
    is_transparent(&edge, &nginx).await
}
