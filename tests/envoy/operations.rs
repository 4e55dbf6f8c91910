//! What an operator does while webhooks keep coming: probe it, rotate secrets and certificates, limit it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use anyhow::Result;
use sandbox::envoy::{Config, Envoy, HTTP_CONNECTION_MANAGER, Options, Shell, validate, workspace_root};
use sandbox::segment::Segment;
use sandbox::stigg::Webhook;
use serde_json::json;
use tempfile::TempDir;
use tests::deployed::rotates_secrets;
use tests::edge::*;
use tests::skip::skip;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A folder in place of /etc/envoy, with the files of deploy/sds.
pub fn etc_envoy() -> Result<TempDir> {
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

/// Replaces a file by a rename, as Envoy requires.
pub fn replace(folder: &Path, file: &str, content: &str) -> Result<()> {
    let new = folder.join(format!(".{file}"));
    std::fs::write(&new, content)?;
    Ok(std::fs::rename(new, folder.join(file))?)
}

/// The expressions that the first comment of envoy.yaml gives for its variants.
const TLS: &[&str] = &["s/#tls //"];
pub const SDS: &[&str] = &["s/#sds //", "/#env/d"];
pub const GLOBAL: &[&str] = &["s/#global //"];
const NATIVE: &[&str] = &["s/#native //", "/#wasm$/d"];
const IPV6: &[&str] = &["s/#ipv6 //", "/#ipv4$/d"];

/// envoy.yaml after the sed commands for these variants.
pub fn rendered(variants: &[&[&str]], etc: &TempDir) -> Result<Config> {
    let shipped = std::fs::read_to_string(workspace_root().join("envoy.yaml"))?;
    let mut sed = Command::new("sed");
    sed.args(["-e", ""]);
    for expression in variants.concat() {
        assert!(shipped.contains(&format!("'{expression}'")), "envoy.yaml does not say {expression}");
        sed.args(["-e", expression]);
    }
    let output = sed.arg(workspace_root().join("envoy.yaml")).output()?;
    Config::from_yaml(&below(etc, std::str::from_utf8(&output.stdout)?))
}

/// A variant for the shell that the test runs, on loopback and with the stand-in for Segment.
fn variant(expressions: &[&str], etc: &TempDir, segment: &Segment) -> Result<Config> {
    let shell = match shell() {
        Shell::Wasm => &[],
        Shell::Native => NATIVE,
    };
    rendered(&[expressions, shell], etc)?.on_loopback()?.upstream(segment)
}

/// envoy.yaml with both secrets from the files of a folder that stands for /etc/envoy.
fn secrets_from_files(etc: &TempDir, segment: &Segment) -> Result<Config> {
    variant(SDS, etc, segment)
}

#[tokio::test]
async fn every_combination_of_the_variants_is_valid() -> Result<()> {
    let etc = etc_envoy()?;
    let each = (0..4).map(|variant| [0, 1, 2, 3].map(|other| other == variant));
    for [tls, sds, global, ipv6] in [[false; 4]].into_iter().chain(each).chain([[true; 4]]) {
        if sds && reads_no_secrets_from_files().await? {
            continue;
        }
        let native = shell() == Shell::Native;
        let variants = [(tls, TLS), (sds, SDS), (global, GLOBAL), (ipv6, IPV6), (native, NATIVE)];
        let chosen = variants.into_iter().filter(|(chosen, _)| *chosen);
        let chosen: Vec<_> = chosen.map(|(_, expressions)| expressions).collect();
        let config = rendered(&chosen, &etc)?;
        let opinion = validate(config.clone(), if sds { Options::default() } else { options() }).await?;
        assert!(opinion.accepted, "{chosen:?}: {}", opinion.log);
        let text = config.to_string();
        for (part, is_there) in [
            ("DownstreamTlsContext", tls),
            ("generic_secret", sds),
            ("filters.http.ratelimit", global),
            ("STIGG_WEBHOOK_SECRET", !sds),
            ("wasmcustom", !native),
            ("extensions.filters.http.wasm", !native),
            ("allow_on_headers_stop_iteration", !native),
            ("dynamic_modules", native),
            ("ipv4_compat", ipv6),
            ("V4_PREFERRED", !ipv6),
        ] {
            assert_eq!(text.contains(part), is_there, "{chosen:?}: {part}");
        }
        // Without a write key that the filter knows, the configuration names the source.
        assert_eq!(config.own_configuration()?.contains(r#""source""#), sds);
        if !tls && !sds && !global && !ipv6 {
            assert_eq!(config, Config::from_yaml(&Config::text(shell())?)?, "the sandbox runs another variant");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_listener_can_serve_ipv6_and_ipv4() -> Result<()> {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        skip("a listener for IPv6 needs a machine with IPv6");
        return Ok(());
    }
    const LISTENER: &str = "/static_resources/listeners/webhooks";
    let etc = etc_envoy()?;
    let segment = Segment::start().await?;
    let mut address = rendered(&[IPV6], &etc)?.get(&format!("{LISTENER}/address"))?.clone();
    address["socket_address"]["port_value"] = json!(0);
    // SO_BINDTODEVICE with "lo", since the address alone means every interface.
    let on_loopback = json!([{ "level": 1, "name": 25, "buf_value": "bG8A", "state": "STATE_PREBIND" }]);
    let config = variant(IPV6, &etc, &segment)?
        .set(&format!("{LISTENER}/address"), address)?
        .set(&format!("{LISTENER}/socket_options"), on_loopback)?;
    let envoy = Envoy::start(config, options()).await?;
    let port = envoy.addr(sandbox::envoy::LISTENER).unwrap().port();
    for host in ["127.0.0.1", "::1"] {
        let mut connection = Connection::open((host.parse::<IpAddr>()?, port).into()).await?;
        connection.send(post(EVENT)).await?;
        assert_eq!(connection.response().await?.status, 200, "{host}");
    }
    Ok(())
}

#[tokio::test]
async fn the_health_check_is_answered_by_envoy_itself() -> Result<()> {
    let edge = Edge::start().await?;
    let probe = async || Webhook::new("").method("GET".parse()?).send(&edge.envoy.url("/healthz")).await;
    assert_eq!(probe().await?.status, 200);
    // While it drains, it tells the load balancer to use other instances.
    edge.envoy.admin_post("/healthcheck/fail").await?;
    assert_eq!(probe().await?.status, 503);
    assert_eq!(edge.send_event(EVENT).await?.status, 200);
    assert!(!edge.envoy.log().contains("healthz"), "probes are not logged");
    Ok(())
}

/// Lets the rate limit accept this many webhooks.
fn accepting(webhooks: usize, config: Config) -> Result<Config> {
    let bucket = format!("{HTTP_CONNECTION_MANAGER}/http_filters/local_ratelimit/typed_config/token_bucket");
    config.set(&bucket, json!({ "max_tokens": webhooks, "tokens_per_fill": 1, "fill_interval": "3600s" }))
}

#[tokio::test]
async fn too_many_webhooks_at_once_are_told_to_come_back() -> Result<()> {
    let edge = Edge::start_with(|config| accepting(2, config)).await?;
    for _ in 0..2 {
        assert_eq!(edge.send_event(EVENT).await?.status, 200);
    }
    let reply = edge.send_event(EVENT).await?;
    assert_eq!((reply.status, &reply.json()["code"]), (429, &json!("rate_limited")));
    assert_eq!((reply.header("retry-after"), reply.header("content-type")), (Some("1"), Some("application/json")));
    assert_eq!(edge.segment.calls().len(), 2);
    Ok(())
}

#[tokio::test]
async fn without_the_rate_limit_service_webhooks_go_on() -> Result<()> {
    let (etc, segment) = (etc_envoy()?, Segment::start().await?);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(); // nobody listens when it is dropped
    let config = variant(GLOBAL, &etc, &segment)?.edit(|config| {
        let service = &mut config["static_resources"]["clusters"][2]["load_assignment"]["endpoints"][0];
        service["lb_endpoints"][0]["endpoint"]["address"]["socket_address"] =
            json!({ "address": "127.0.0.1", "port_value": nobody });
    });
    let edge = Edge { envoy: Envoy::start(config, options()).await?, segment };
    for _ in 0..3 {
        assert_eq!(edge.send_event(EVENT).await?.status, 200);
    }
    assert_eq!(edge.envoy.stat("cluster.segment.ratelimit.error").await?, 3, "it was asked for each call");
    assert_eq!(edge.send_event(CATALOG_EVENT).await?.status, 204);
    assert_eq!(edge.envoy.stat("cluster.segment.ratelimit.error").await?, 3, "and for nothing else");
    Ok(())
}

/// As many webhooks as the limit allows come beside a flood of everything else. One more is over the limit.
#[tokio::test]
async fn strangers_take_nothing_from_the_rate_limit() -> Result<()> {
    const ALLOWED: usize = 60;
    for change in [Ok, buffered] {
        let edge = Arc::new(Edge::start_with(|config| change(accepting(ALLOWED, config)?)).await?);
        let (over, flood) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut strangers = JoinSet::new();
        for (path, webhook, status) in [
            (PATH, Webhook::new(EVENT), 401),
            (PATH, Webhook::new(EVENT).secret("wrong"), 401),
            (PATH, Webhook::new("").method("GET".parse()?), 405),
            ("/elsewhere", Webhook::new(EVENT).secret(SECRET), 404),
            ("/healthz", Webhook::new("").method("GET".parse()?), 200),
            (PATH, Webhook::new(CATALOG_EVENT).secret(SECRET), 204), // nor does one that is not sent
            (PATH, Webhook::new("{").secret(SECRET), 400),
        ] {
            for webhook in [webhook.clone(), webhook.http2()] {
                let (edge, over, flood) = (edge.clone(), over.clone(), flood.clone());
                strangers.spawn(async move {
                    while !over.load(Relaxed) {
                        let reply = webhook.clone().send(&edge.envoy.url(path)).await?;
                        anyhow::ensure!(reply.status == status, "{path}: {webhook:?}: {reply:?}");
                        flood.fetch_add(1, Relaxed);
                    }
                    anyhow::Ok(())
                });
            }
        }
        for n in 0..ALLOWED {
            // The flood goes on.
            let before = flood.load(Relaxed);
            eventually("strangers come", async || Ok(flood.load(Relaxed) > before || strangers.is_empty())).await?;
            let webhook = Webhook::new(EVENT);
            let reply = edge.send(if n % 2 == 0 { webhook } else { webhook.http2() }).await?;
            assert_eq!(reply.status, 200, "webhook {n}");
        }
        assert_eq!(edge.send_event(EVENT).await?.status, 429);
        over.store(true, Relaxed);
        for stranger in strangers.join_all().await {
            stranger?;
        }
        assert!(flood.load(Relaxed) > 2 * ALLOWED, "{flood:?}");
        assert_eq!(edge.segment.calls().len(), ALLOWED);
    }
    Ok(())
}

#[tokio::test]
async fn secrets_from_files_are_rotated_under_load_without_a_failed_request() -> Result<()> {
    if reads_no_secrets_from_files().await? {
        return Ok(());
    }
    let etc = etc_envoy()?;
    let secrets = etc.path().join("secrets");
    replace(&secrets, "stigg", &format!("{SECRET}\n"))?;
    replace(&secrets, "segment", &format!("{WRITE_KEY}\n"))?;
    let segment = Segment::start().await?;
    let config = secrets_from_files(&etc, &segment)?;
    let edge = Edge { envoy: Envoy::start(config, Options::default()).await?, segment };
    rotates_secrets(edge, |write_key, valid| {
        replace(&secrets, "stigg", &valid.join("\n"))?;
        replace(&secrets, "segment", write_key)
    })
    .await
}

#[tokio::test]
async fn without_a_webhook_secret_nobody_is_let_in() -> Result<()> {
    if reads_no_secrets_from_files().await? {
        return Ok(());
    }
    // The second is what an editor makes of "new" in UTF-16.
    for file in ["\n", "n\0e\0w\0\n\0"] {
        let (_etc, edge) = with_secrets_file(file).await?;
        for secret in ["", "-", "new"] {
            let reply = Webhook::new(EVENT).secret(secret).send(&edge.envoy.url(PATH)).await?;
            assert_eq!(
                (reply.status, &reply.json()["code"]),
                (500, &json!("secret_unavailable")),
                "{file:?}, {secret}"
            );
        }
        assert_eq!(edge.segment.connections(), 0);
    }
    let (_etc, edge) = with_secrets_file("\u{feff}new\rold\r").await?;
    for secret in ["new", "old"] {
        let reply = Webhook::new(EVENT).secret(secret).send(&edge.envoy.url(PATH)).await?;
        assert_eq!(reply.status, 200, "{secret}: {}", reply.text());
    }
    Ok(())
}

/// With this file of webhook secrets.
async fn with_secrets_file(text: &str) -> Result<(TempDir, Edge)> {
    let etc = etc_envoy()?;
    replace(&etc.path().join("secrets"), "stigg", text)?;
    replace(&etc.path().join("secrets"), "segment", WRITE_KEY)?;
    let segment = Segment::start().await?;
    let config = secrets_from_files(&etc, &segment)?;
    Ok((etc, Edge { envoy: Envoy::start(config, Options::default()).await?, segment }))
}

#[tokio::test]
async fn without_a_write_key_stigg_is_told_so() -> Result<()> {
    if is_too_old((1, 39), "secrets from files").await? {
        return Ok(());
    }
    let etc = etc_envoy()?;
    let secrets = etc.path().join("secrets");
    replace(&secrets, "stigg", SECRET)?;
    let segment = Segment::start().await?;
    let edge = Edge { envoy: Envoy::start(secrets_from_files(&etc, &segment)?, Options::default()).await?, segment };
    let url = edge.envoy.url(PATH);
    let send = async |secret| Webhook::new(EVENT).secret(secret).send(&url).await;
    // The file is missing, then it is empty.
    for _ in 0..2 {
        let reply = send(SECRET).await?;
        assert_eq!((reply.status, &reply.json()["code"]), (503, &json!("write_key_unavailable")));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let reply = send("wrong").await?;
        assert_eq!((reply.status, &reply.json()["code"]), (401, &json!("unauthorized")));
        replace(&secrets, "segment", "")?;
    }
    assert_eq!(edge.segment.requests_begun(), 0);
    assert_eq!(edge.envoy.stat("cluster.segment.upstream_rq_completed").await?, 0, "it is not Segment's answer");
    // The file comes, and Segment's own 401 stays one.
    replace(&secrets, "segment", WRITE_KEY)?;
    eventually("the write key is used", async || Ok(send(SECRET).await?.status == 200)).await?;
    edge.segment.behave(sandbox::segment::Behaviour::status(401));
    let reply = send(SECRET).await?;
    assert_eq!((reply.status, reply.text().as_str()), (401, r#"{"success":false}"#));
    // One that is encoded already is not a key.
    assert!(!edge.envoy.log().contains("write_key: "));
    replace(&secrets, "segment", "d2swMTIzNDU2Nzg5YWJjZGVmZ2hpamtsbW5vcHFyc3Q6")?;
    let warned =
        async || Ok(send(SECRET).await?.status == 401 && edge.envoy.log().contains("write_key: this is not 32"));
    eventually("a warning", warned).await?;
    assert!(!edge.envoy.log().contains("d2swMTIz"));
    Ok(())
}

#[tokio::test]
async fn the_certificate_is_replaced_while_connections_come() -> Result<()> {
    let etc = etc_envoy()?;
    let certs = etc.path().join("certs");
    let issue = || -> Result<_> {
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        // The key first: Envoy reads both when the certificate changes, and keeps the old pair until they match.
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
    // The listener does not accept plain HTTP.
    let mut plain = edge.connect().await?;
    plain.send(post(EVENT)).await?;
    assert_eq!(plain.closed().await?, "");
    Ok(())
}

#[tokio::test]
async fn connections_that_only_finish_the_handshake_cannot_take_all_places() -> Result<()> {
    if is_too_old((1, 37), "idle connections that are closed sooner").await? {
        return Ok(());
    }
    const MOST: usize = 20;
    let etc = etc_envoy()?;
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    replace(&etc.path().join("certs"), "tls.key", &certificate.signing_key.serialize_pem())?;
    replace(&etc.path().join("certs"), "tls.crt", &certificate.cert.pem())?;
    let segment = Segment::start().await?;
    let config = variant(TLS, &etc, &segment)?.set(MOST_CONNECTIONS, json!(MOST))?;
    let envoy = Envoy::start(config, options()).await?;
    let addr = envoy.addr(sandbox::envoy::LISTENER).unwrap();
    let mut idle = Vec::new();
    for _ in 0..MOST - 2 {
        idle.push(tls(addr, &certificate.cert).await?);
    }
    // PATIENCE is below idle_timeout.
    envoy.wait_for_stat("http.webhooks.downstream_cx_idle_timeout", MOST as u64 / 5, PATIENCE).await?;
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
