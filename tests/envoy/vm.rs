//! The WebAssembly VM: its permissions, and webhooks after a trap.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use sandbox::envoy::{self, Config, HTTP_CONNECTION_MANAGER, PLUGIN, ROUTE, workspace_root};
use sandbox::stigg::Webhook;
use sandbox::trapping;
use serde_json::json;
use tests::deployed::events_arrive_that_nothing_holds;
use tests::edge::*;
use tests::openings::MARK;
use tokio::task::JoinSet;
use wasmparser::{Parser, Payload};

use crate::route::{Change, batches, is_filter_missing};

#[tokio::test]
async fn after_a_trap_the_filter_recovers_and_nothing_went_through_unmapped() -> Result<()> {
    let trapping = trapping::module(&Config::shipped()?.module_file()?, "proxy_on_request_trailers")?;
    let edge = Edge::start_with(|config| config.module(&trapping)).await?;
    for round in 1..=2 {
        assert_eq!(edge.send_event(EVENT).await?.status, 200);
        let trap = edge.send(Webhook::new(EVENT).http2().trailer("x", "1")).await;
        assert!(trap.map_or(true, |reply| reply.status == 503), "a request that traps the VM fails");
        // While there is no VM, every webhook is rejected.
        let recovered = async {
            let mut rejected = 0;
            loop {
                match edge.send_event(EVENT).await?.status {
                    200 => return anyhow::Ok(rejected),
                    503 => rejected += 1,
                    other => anyhow::bail!("{other}"),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let rejected = tokio::time::timeout(PATIENCE, recovered).await??;
        println!("{rejected} webhooks rejected until the VM was back");
        assert_eq!(edge.segment.calls().len(), 2 * round);
    }
    for call in edge.segment.calls() {
        assert!(call.body.starts_with(br#"{"event":"customer_payment_failed","userId":"acme","#), "{call:?}");
    }
    Ok(())
}

/// The route of a gateway that cannot match on filter state. No other route takes the path of the call.
#[tokio::test]
async fn an_event_that_nobody_holds_arrives_where_a_header_chooses_the_route() -> Result<()> {
    let edge = Edge::start_with(|config| {
        let marked = json!([{ "name": MARK.0, "string_match": { "exact": MARK.1 } }]);
        config
            .hold_request_headers(false)?
            .remove(&format!("{HTTP_CONNECTION_MANAGER}/http_filters/envoy.filters.http.buffer"))?
            .remove(&ROUTE.replace("stigg_to_segment", "not_found"))?
            .remove(&format!("{ROUTE}/match/filter_state"))?
            .set(&format!("{ROUTE}/match/headers"), marked)
    })
    .await?;
    events_arrive_that_nothing_holds(&edge).await
}

#[tokio::test]
async fn what_nobody_holds_until_it_is_mapped_does_not_reach_segment() -> Result<()> {
    for change in [Ok as Change, batches] {
        let edge = Edge::start_with(|config| {
            let buffer = format!("{HTTP_CONNECTION_MANAGER}/http_filters/envoy.filters.http.buffer");
            change(config.hold_request_headers(false)?.remove(&buffer)?)
        })
        .await?;
        for webhook in
            [Webhook::new(EVENT), Webhook::new(EVENT).http2(), Webhook::new(CATALOG_EVENT), Webhook::new("{")]
        {
            let reply = edge.send(webhook).await?;
            assert!(is_filter_missing(&reply), "{reply:?}");
        }
        assert_eq!(
            edge.send(Webhook::new(EVENT).without_header("content-type").method("GET".parse()?)).await?.status,
            405
        );
        assert_eq!(edge.segment.connections(), 0);
    }
    Ok(())
}

#[tokio::test]
async fn the_filter_may_do_only_what_it_needs() -> Result<()> {
    let config = Config::shipped()?;
    let allowed = config.get(&format!("{PLUGIN}/capability_restriction_config/allowed_capabilities"))?;
    let allowed: BTreeSet<_> = allowed.as_object().unwrap().keys().map(String::as_str).collect();

    // Host calls: those in src/abi.rs, and those that the module needs to log, to read its environment and to end.
    let abi = std::fs::read_to_string(workspace_root().join("src/abi.rs"))?;
    let declared = abi.lines().filter_map(|line| line.trim().strip_prefix("fn proxy_")?.split('(').next());
    let mut used: BTreeSet<_> = declared.map(|name| format!("proxy_{name}")).collect();
    used.extend(["proxy_log", "environ_get", "environ_sizes_get", "fd_write", "proc_exit"].map(str::to_owned));
    // Callbacks: those in src/shell.rs, and those that create and end contexts.
    let shell = std::fs::read_to_string(workspace_root().join("src/shell.rs"))?;
    let implemented = shell.lines().filter_map(|line| line.trim().strip_prefix("fn on_")?.split('(').next());
    used.extend(implemented.map(|name| format!("proxy_on_{}", name.trim_start_matches("http_"))));
    let life = ["context_create", "vm_start", "delete", "memory_allocate"];
    used.extend(life.map(|name| format!("proxy_on_{name}")));
    assert_eq!(allowed, used.iter().map(String::as_str).collect());

    // The module has all of these, so none is misspelt.
    let module = std::fs::read(config.module_file()?)?;
    let mut known = BTreeSet::new();
    for payload in Parser::new(0).parse_all(&module) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    known.insert(import?.name);
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    known.insert(export?.name);
                }
            }
            _ => {}
        }
    }
    assert_eq!(allowed.difference(&known).collect::<Vec<_>>(), [&""; 0]);
    Ok(())
}

/// On Envoy 1.36 and 1.37, plugins with the same code and the same `vm_id` share a VM, with the variables of the first.
#[tokio::test]
async fn a_second_plugin_sees_its_own_variables() -> Result<()> {
    const OTHER_SECRET: &str = "whsec-other-1f0c";
    const OTHER: &str = "/static_resources/listeners/other";
    let edge = Edge::start_with(|config| {
        let plugin = PLUGIN.replace("/static_resources/listeners/webhooks", OTHER);
        config
            .edit(|whole| {
                let listeners = &mut whole["static_resources"]["listeners"];
                let mut other = listeners[0].clone();
                other["name"] = json!("other");
                listeners.as_array_mut().unwrap().push(other);
            })
            .remove(&format!("{plugin}/vm_config/vm_id"))?
            .set(
                &format!("{plugin}/vm_config/environment_variables"),
                json!({ "key_values": { "SEGMENT_WRITE_KEY": WRITE_KEY, "STIGG_WEBHOOK_SECRET": OTHER_SECRET } }),
            )
    })
    .await?;
    let other = format!("http://{}{PATH}", edge.envoy.addr("other").unwrap());
    for (url, secret, status) in [
        (&edge.envoy.url(PATH), SECRET, 200),
        (&edge.envoy.url(PATH), OTHER_SECRET, 401),
        (&other, OTHER_SECRET, 200),
        (&other, SECRET, 401),
    ] {
        let reply = Webhook::new(EVENT).secret(secret).send(url).await?;
        assert_eq!(reply.status, status, "{secret} at {url}");
    }
    Ok(())
}

#[tokio::test]
async fn headers_that_envoy_does_not_let_go_are_told_in_the_log() -> Result<()> {
    let edge = Edge::start_with(|config| {
        config
            .set(&format!("{HTTP_CONNECTION_MANAGER}/common_http_protocol_options/max_stream_duration"), json!("1s"))?
            .remove(&format!("{PLUGIN}/allow_on_headers_stop_iteration"))
    })
    .await?;
    let reply = edge.send_event(EVENT).await?;
    assert_eq!((reply.status, &reply.json()["code"]), (504, &json!("unavailable")));
    edge.envoy.wait_for_log("set allow_on_headers_stop_iteration to true", PATIENCE).await?;
    assert_eq!(edge.segment.connections(), 0);
    Ok(())
}

#[tokio::test]
async fn no_call_that_the_filter_makes_is_restricted() -> Result<()> {
    let edge = Edge::start().await?;
    for body in [EVENT, CATALOG_EVENT, "{", "[]"] {
        edge.send(Webhook::new(body).http2().trailer("x", "1")).await?;
        edge.send_event(body).await?;
    }
    let log = edge.envoy.log();
    assert!(!log.contains("restricted"), "{log}");
    Ok(())
}

#[tokio::test]
async fn a_host_that_does_not_count_serves_webhooks_all_the_same() -> Result<()> {
    for denied in [&["proxy_define_metric"][..], &["proxy_increment_metric"]] {
        let edge = Edge::start_with(|config| without_calls(config, denied)).await?;
        for (body, status) in [(EVENT, 200), (CATALOG_EVENT, 204), ("{", 400)] {
            assert_eq!(edge.send_event(body).await?.status, status, "without {denied:?}");
        }
        assert_eq!(edge.segment.calls().len(), 1);
        let text = edge.envoy.admin_get("/stats/prometheus").await?;
        let mut counters = text.lines().filter(|line| line.starts_with("stigg_segment_webhooks"));
        assert!(counters.all(|line| line.ends_with(" 0")), "without {denied:?}");
    }
    Ok(())
}

/// With the shipped time-outs, of which the omission test shortens some.
#[tokio::test]
async fn a_rejection_that_the_filter_may_not_answer_ends_before_stigg_gives_up() -> Result<()> {
    const STIGG_GIVES_UP: Duration = Duration::from_secs(30);
    let edge = Edge::start_with(|config| without_calls(config, &["proxy_send_local_response"])).await?;
    let begin = Instant::now();
    let rejected =
        [Webhook::new(EVENT).secret("wrong"), Webhook::new("{").secret(SECRET), Webhook::new("").secret(SECRET)];
    let mut replies = JoinSet::new();
    for webhook in rejected.into_iter().flat_map(|webhook| [webhook.clone(), webhook.http2()]) {
        let url = edge.envoy.url(PATH);
        replies.spawn(async move { webhook.send(&url).await });
    }
    for reply in replies.join_all().await {
        assert!(reply?.status >= 400);
    }
    assert!(begin.elapsed() < STIGG_GIVES_UP, "{:?}", begin.elapsed());
    assert_eq!(edge.segment.connections(), 0);
    Ok(())
}

#[tokio::test]
async fn a_configuration_that_the_filter_cannot_read_stops_envoy() -> Result<()> {
    let shipped = Config::shipped()?;
    let unreadable = envoy::validate(without_calls(shipped.clone(), &["proxy_get_buffer_bytes"])?, options()).await?;
    assert!(!unreadable.accepted && unreadable.log.contains("bytes cannot be read"), "{}", unreadable.log);
    let a_struct = json!({ "@type": "type.googleapis.com/google.protobuf.Struct", "value": { "max_body_bytes": 1 } });
    let a_struct = envoy::validate(shipped.set(&format!("{PLUGIN}/configuration"), a_struct)?, options()).await?;
    let line = "give it as a google.protobuf.StringValue";
    assert!(!a_struct.accepted && a_struct.log.contains(line), "{}", a_struct.log);
    Ok(())
}
