//! What an operator does while webhooks keep coming: probe it, rotate secrets and certificates, limit it, end it.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Result;
use base64ct::{Base64, Encoding};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use sandbox::envoy::{Config, Envoy, HTTP_CONNECTION_MANAGER, Options, Shell, locate, validate, workspace_root};
use sandbox::segment::{Behaviour, Segment};
use sandbox::stigg::Webhook;
use serde_json::json;
use tempfile::TempDir;
use tests::edge::*;
use tests::on_both_shells;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio_rustls::{TlsConnector, client::TlsStream};

on_both_shells! {
    secrets_from_files_are_rotated_under_load_without_a_failed_request
    without_a_webhook_secret_nobody_is_let_in
    the_certificate_is_replaced_while_connections_come
    on_sigterm_every_accepted_webhook_is_still_answered
}

/// A folder that stands for /etc/envoy, with the files of deploy/sds in it.
fn etc_envoy() -> Result<TempDir> {
    let etc = tempfile::tempdir()?;
    for folder in ["sds", "certs", "secrets"] {
        std::fs::create_dir(etc.path().join(folder))?;
    }
    for file in ["tls.yaml", "stigg.yaml", "segment.yaml"] {
        let text = std::fs::read_to_string(workspace_root().join("deploy/sds").join(file))?;
        std::fs::write(etc.path().join("sds").join(file), below(&etc, &text))?;
    }
    Ok(etc)
}

fn below(etc: &TempDir, text: &str) -> String {
    text.replace("/etc/envoy", etc.path().to_str().unwrap())
}

/// Replaces a file as it must be: by a rename.
fn replace(folder: &Path, file: &str, content: &str) -> Result<()> {
    let new = folder.join(format!(".{file}"));
    std::fs::write(&new, content)?;
    Ok(std::fs::rename(new, folder.join(file))?)
}

/// The expressions that envoy.yaml's head gives for its variants.
const TLS: &[&str] = &["s/#tls //"];
const SDS: &[&str] = &["s/#sds //", "/#env/d"];
const NATIVE: &[&str] = &["s/#native //", "/#wasm$/d"];

/// envoy.yaml after the sed commands for these variants.
fn rendered(variants: &[&[&str]], etc: &TempDir) -> Result<Config> {
    let head = std::fs::read_to_string(workspace_root().join("envoy.yaml"))?;
    let mut sed = Command::new("sed");
    for expression in variants.concat() {
        assert!(head.contains(&format!("'{expression}'")), "envoy.yaml does not say {expression}");
        sed.args(["-e", expression]);
    }
    let output = if variants.is_empty() {
        head
    } else {
        String::from_utf8(sed.arg(workspace_root().join("envoy.yaml")).output()?.stdout)?
    };
    Config::from_yaml(&below(etc, &output))
}

/// A variant on the shell that the test runs, with everything on loopback and the stand-in for Segment.
fn variant(expressions: &[&str], etc: &TempDir, segment: &Segment) -> Result<Config> {
    let variants = match shell() {
        Shell::Wasm => vec![expressions],
        Shell::Native => vec![expressions, NATIVE],
    };
    rendered(&variants, etc)?.on_loopback()?.upstream(segment)
}

#[tokio::test]
async fn all_combinations_of_the_variants_are_valid() -> Result<()> {
    let etc = etc_envoy()?;
    for (tls, sds, native) in (0..8).map(|n| (n & 1 > 0, n & 2 > 0, n & 4 > 0)) {
        if sds && is_too_old((1, 39), "secrets from files").await?
            || native && is_too_old((1, 38), "dynamic modules").await?
        {
            continue;
        }
        let chosen = [(tls, TLS), (sds, SDS), (native, NATIVE)].into_iter().filter(|(chosen, _)| *chosen);
        let chosen: Vec<_> = chosen.map(|(_, expressions)| expressions).collect();
        let config = rendered(&chosen, &etc)?;
        let options = if sds { Options::default() } else { options() };
        let opinion = validate(config.clone(), options).await?;
        assert!(opinion.accepted, "{chosen:?}: {}", opinion.log);
        // Each says what it is for, and nothing of the others is left.
        let text = config.to_string();
        assert_eq!(config.shell() == Shell::Native, native);
        for (part, is_there) in [
            ("DownstreamTlsContext", tls),
            ("credential_injector", sds),
            ("STIGG_WEBHOOK_SECRET", !sds),
            ("wasmcustom", !native),
            ("extensions.filters.http.wasm", !native),
            ("hold_request_headers", !native),
            ("dynamic_modules", native),
        ] {
            assert_eq!(text.contains(part), is_there, "{chosen:?}: {part}");
        }
        if !tls && !sds {
            assert_eq!(config, Config::from_yaml(&Config::text(config.shell())?)?, "the sandbox runs another variant");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_health_check_is_answered_by_envoy_itself() -> Result<()> {
    let edge = Edge::start().await?;
    let probe = async || Webhook::new("").method("GET".parse()?).send(&edge.envoy.url("/healthz")).await;
    assert_eq!(probe().await?.status, 200);
    // While it drains, the load balancer is told to look elsewhere.
    edge.envoy.admin_post("/healthcheck/fail").await?;
    assert_eq!(probe().await?.status, 503);
    assert_eq!(edge.send_event(EVENT).await?.status, 200);
    assert!(!edge.envoy.log().contains("healthz"), "probes are not logged");
    Ok(())
}

#[tokio::test]
async fn too_many_webhooks_at_once_are_told_to_come_back() -> Result<()> {
    let bucket = format!("{HTTP_CONNECTION_MANAGER}/http_filters/local_ratelimit/typed_config/token_bucket");
    let two = json!({ "max_tokens": 2, "tokens_per_fill": 2, "fill_interval": "60s" });
    let edge = Edge::start_with(|config| config.set(&bucket, two)).await?;
    for _ in 0..2 {
        assert_eq!(edge.send_event(EVENT).await?.status, 200);
    }
    let reply = edge.send_event(EVENT).await?;
    assert_eq!((reply.status, &reply.json()["code"]), (429, &json!("rate_limited")));
    assert_eq!((reply.header("retry-after"), reply.header("content-type")), (Some("1"), Some("application/json")));
    assert_eq!(edge.segment.calls().len(), 2);
    Ok(())
}

async fn secrets_from_files_are_rotated_under_load_without_a_failed_request() -> Result<()> {
    if is_too_old((1, 39), "secrets from files").await? {
        return Ok(());
    }
    const NEW_SECRET: &str = "whsec-next-91c0";
    const NEW_KEY: &str = "wkABCDEFGHIJKLMNOPQRSTUVWXYZ0123";
    // No line feed behind it: Envoy 1.39 would send that too.
    let basic = |key: &str| Base64::encode_string(format!("{key}:").as_bytes());
    let etc = etc_envoy()?;
    let secrets = etc.path().join("secrets");
    replace(&secrets, "stigg", &format!("{SECRET}\n"))?;
    replace(&secrets, "segment", &basic(WRITE_KEY))?;
    let segment = Segment::start().await?;
    let config = variant(SDS, &etc, &segment)?;
    let edge = Arc::new(Edge { envoy: Envoy::start(config, Options::default()).await?, segment });
    let send = async |edge: &Edge, secret| {
        Ok::<_, anyhow::Error>(Webhook::new(EVENT).secret(secret).send(&edge.envoy.url(PATH)).await?.status)
    };
    for (secret, status) in [(SECRET, 200), (NEW_SECRET, 401), ("", 401), ("-", 401)] {
        assert_eq!(send(&edge, secret).await?, status, "{secret}");
    }

    let uses_new = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let load = tokio::spawn({
        let (edge, uses_new, answered) = (edge.clone(), uses_new.clone(), answered.clone());
        async move {
            loop {
                let secret = if uses_new.load(Relaxed) { NEW_SECRET } else { SECRET };
                let status = send(&edge, secret).await?;
                anyhow::ensure!(status == 200, "{status} after {} answers", answered.load(Relaxed));
                answered.fetch_add(1, Relaxed);
            }
            #[allow(unreachable_code, reason = "tells the type of the error")]
            anyhow::Ok(())
        }
    });
    let some_more = async || {
        let enough = answered.load(Relaxed) + 50;
        eventually("50 more answers", async || Ok(answered.load(Relaxed) >= enough || load.is_finished())).await
    };
    some_more().await?;
    replace(&secrets, "stigg", &format!("{NEW_SECRET}\n{SECRET}\n"))?;
    eventually("the new secret is valid", async || Ok(send(&edge, NEW_SECRET).await? == 200)).await?;
    some_more().await?;
    uses_new.store(true, Relaxed); // Stigg is given the new one
    replace(&secrets, "segment", &basic(NEW_KEY))?;
    let last_key = || edge.segment.calls().last().and_then(|call| call.write_key.clone());
    eventually("the new write key is used", async || Ok(last_key().as_deref() == Some(NEW_KEY))).await?;
    some_more().await?;
    replace(&secrets, "stigg", NEW_SECRET)?;
    eventually("the old secret is refused", async || Ok(send(&edge, SECRET).await? == 401)).await?;
    some_more().await?;
    assert!(!load.is_finished(), "a request failed: {:?}", load.await);
    load.abort();
    let keys: Vec<_> = edge.segment.calls().into_iter().map(|call| call.write_key.unwrap()).collect();
    assert!(keys.iter().all(|key| key == WRITE_KEY || key == NEW_KEY));
    // Nothing shows them.
    let dump = edge.envoy.admin_get("/config_dump").await?;
    for secret in [SECRET, NEW_SECRET, WRITE_KEY, NEW_KEY, &basic(NEW_KEY)] {
        assert!(!dump.contains(secret) && !edge.envoy.log().contains(secret), "{secret}");
    }
    Ok(())
}

async fn without_a_webhook_secret_nobody_is_let_in() -> Result<()> {
    if is_too_old((1, 39), "secrets from files").await? {
        return Ok(());
    }
    let etc = etc_envoy()?;
    replace(&etc.path().join("secrets"), "stigg", "\n")?;
    replace(&etc.path().join("secrets"), "segment", "eDo=")?;
    let segment = Segment::start().await?;
    let config = variant(SDS, &etc, &segment)?;
    let edge = Edge { envoy: Envoy::start(config, Options::default()).await?, segment };
    for secret in ["", "-", "anything"] {
        let reply = Webhook::new(EVENT).secret(secret).send(&edge.envoy.url(PATH)).await?;
        assert_eq!((reply.status, &reply.json()["code"]), (500, &json!("secret_unavailable")), "{secret}");
    }
    assert_eq!(edge.segment.connections(), 0);
    Ok(())
}

async fn the_certificate_is_replaced_while_connections_come() -> Result<()> {
    let etc = etc_envoy()?;
    let certs = etc.path().join("certs");
    let issue = || -> Result<_> {
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        // The key first: Envoy reads both once the certificate has changed, and keeps the old pair until they match.
        replace(&certs, "tls.key", &certificate.signing_key.serialize_pem())?;
        replace(&certs, "tls.crt", &certificate.cert.pem())?;
        Ok(certificate.cert)
    };
    let first = issue()?;
    let segment = Segment::start().await?;
    let edge = Edge { envoy: Envoy::start(variant(TLS, &etc, &segment)?, options()).await?, segment };
    let addr = edge.envoy.addr(sandbox::envoy::LISTENER).unwrap();
    let exchange = async |trusted: &rcgen::Certificate| -> Result<String> {
        let mut stream = tls(addr, trusted).await?;
        stream
            .write_all(
                request("POST", &format!("content-length: {}\r\nconnection: close\r\n", EVENT.len()), EVENT).as_bytes(),
            )
            .await?;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await; // without a close_notify this fails after the answer
        Ok(String::from_utf8(answer)?)
    };
    assert!(exchange(&first).await?.starts_with("HTTP/1.1 200 OK"));
    let second = issue()?;
    eventually("the second certificate is served", async || Ok(exchange(&second).await.is_ok())).await?;
    assert!(exchange(&second).await?.starts_with("HTTP/1.1 200 OK"));
    assert!(exchange(&first).await.is_err());
    // Plain HTTP is not spoken there.
    let mut plain = edge.connect().await?;
    plain.send(post(EVENT)).await?;
    assert_eq!(plain.closed().await?, "");
    Ok(())
}

async fn tls(addr: SocketAddr, trusted: &rcgen::Certificate) -> Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone())?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost")?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(addr).await?).await?)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// A process and all it has started; ended with it.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(pid(&self.0), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

async fn on_sigterm_every_accepted_webhook_is_still_answered() -> Result<()> {
    const UNDER_WAY: usize = 20;
    let segment = Segment::start().await?;
    segment.behave(Behaviour::Accept.after(Duration::from_secs(2)));
    let [listener, admin] = free_ports()?;
    let ports = move |port| if port == 9901 { admin } else { listener };
    let config = Config::shipped_with(shell())?.on_loopback_at(ports)?.upstream(&segment)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("envoy.json");
    std::fs::write(&file, config.to_string())?;
    let envoy = tokio::task::spawn_blocking(locate).await??;
    let mut gentle = Group(
        Command::new(workspace_root().join("deploy/run-envoy"))
            .arg(envoy)
            .args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "off", "-c"])
            .arg(&file)
            .env("ADMIN", format!("127.0.0.1:{admin}"))
            .envs(options().env)
            .stdout(std::process::Stdio::null())
            .current_dir(workspace_root())
            .process_group(0)
            .spawn()?,
    );
    let url = format!("http://127.0.0.1:{listener}{PATH}");
    let healthz = url.replace(PATH, "/healthz");
    let probe = async || Ok(Webhook::new("").method("GET".parse()?).send(&healthz).await.is_ok());
    eventually("Envoy is up", probe).await?;

    let mut sent = tokio::task::JoinSet::new();
    for n in 0..UNDER_WAY {
        let url = url.clone();
        let webhook = Webhook::new(EVENT).secret(SECRET);
        sent.spawn(async move { (if n % 2 == 0 { webhook } else { webhook.http2() }).send(&url).await });
    }
    eventually("all are under way", async || Ok(segment.requests_begun() == UNDER_WAY)).await?;
    assert_eq!(segment.calls().len(), 0, "all of them are under way");
    kill(pid(&gentle.0), Signal::SIGTERM)?;
    for answer in sent.join_all().await {
        assert_eq!(answer?.status, 200);
    }
    let ended = tokio::task::spawn_blocking(move || gentle.0.wait());
    assert!(tokio::time::timeout(PATIENCE, ended).await???.success());
    assert_eq!(segment.accepted().len(), UNDER_WAY);
    Ok(())
}

/// Ports nobody listens on, for an Envoy whose admin interface a script must know.
fn free_ports() -> Result<[u16; 2]> {
    let sockets = [std::net::TcpListener::bind("127.0.0.1:0")?, std::net::TcpListener::bind("127.0.0.1:0")?];
    Ok([sockets[0].local_addr()?.port(), sockets[1].local_addr()?.port()])
}
