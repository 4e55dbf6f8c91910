//! The manifests without what holds a request until its event is mapped.

use anyhow::{Context, Result};
use sandbox::envoy::{Envoy, Shell};
use sandbox::segment::Segment;
use serde_json::{Value, json};
use tests::deployed::events_arrive_that_nothing_holds;
use tests::edge::*;
use tests::translated::Translated;
use tokio::io::AsyncReadExt;

use crate::data::{envoy_gateway, istio};
use crate::gateway::Gateway;
use crate::istio::{edge_on, shipped, with_gateway_api, without};

#[tokio::test]
async fn without_its_request_buffer_envoy_gateway_sends_neither_the_secret_nor_a_rejected_event() -> Result<()> {
    let mut gateway = Gateway::prepare(Shell::Wasm).await?;
    let policies = gateway.manifests.0.iter_mut().filter(|manifest| manifest["kind"] == "BackendTrafficPolicy");
    policies.for_each(|policy| drop(policy["spec"].as_object_mut().and_then(|spec| spec.remove("requestBuffer"))));
    only_the_head_of_a_rejected_event_reaches_segment(envoy_gateway(gateway).await?).await
}

#[tokio::test]
async fn without_its_envoy_filter_istio_sends_neither_the_secret_nor_a_rejected_event() -> Result<()> {
    for manifest in [shipped()?, with_gateway_api()?] {
        only_the_head_of_a_rejected_event_reaches_segment(istio(&without(&manifest, "EnvoyFilter"))?).await?;
    }
    Ok(())
}

/// Where only a header chooses the route, it is chosen before the event is read. If nothing holds the request, the head
/// of one with a valid secret reaches Segment although its event is rejected; neither the secret nor the event does.
async fn only_the_head_of_a_rejected_event_reaches_segment(made: Value) -> Result<()> {
    events_arrive_that_nothing_holds(&edge_on(made.clone()).await?).await?;
    // It takes down whatever comes, also of a request that does not end.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let socket = json!({ "address": "127.0.0.1", "port_value": listener.local_addr()?.port() });
    let cluster = sandbox::envoy::SEGMENT_CLUSTER;
    let endpoint = format!("{cluster}/load_assignment/endpoints/0/lb_endpoints/0/endpoint");
    let config = Translated(made)
        .config(Shell::Wasm, &Segment::start().await?)?
        .remove(&format!("{cluster}/transport_socket"))?
        .set(&format!("{cluster}/typed_extension_protocol_options"), json!({}))? // one of them negotiates HTTP/2 with TLS
        .set(&format!("{endpoint}/address/socket_address"), socket)?;
    let edge = Edge { envoy: Envoy::start(config, options()).await?, segment: Segment::start().await? };

    let unmapped = [CATALOG_EVENT, "{\"type\": \"customer.payment_failed", "[\"private\"]"];
    for (body, status) in unmapped.into_iter().zip([204, 400, 400]) {
        let chunked = post_chunked(body, 7);
        let (head, body) = chunked.split_at(chunked.find("\r\n\r\n").context("a head")? + 4);
        let exchange = async {
            let mut stigg = edge.connect().await?;
            stigg.send(head).await?;
            let (mut segment, _) = listener.accept().await?;
            let mut received = Vec::new();
            while !received.ends_with(b"\r\n\r\n") {
                received.push(segment.read_u8().await?);
            }
            stigg.send(body).await?;
            let reply = stigg.response().await?;
            let _ = segment.read_to_end(&mut received).await; // Envoy resets what it does not finish
            Ok::<_, anyhow::Error>((reply, String::from_utf8(received)?.to_lowercase()))
        };
        let (reply, received) = tokio::time::timeout(PATIENCE, exchange).await??;
        assert_eq!(reply.status, status, "{body}");
        assert!(received.starts_with("post /v1/track http/1.1\r\n"), "{received}");
        assert!(received.ends_with("\r\n\r\n") && received.matches("\r\n\r\n").count() == 1, "{received}");
        assert!(!received.contains(SECRET) && !received.contains("stigg_segment_filter"), "{received}");
    }
    // A stranger's request does not get there at all.
    assert_eq!(edge.ask(post(EVENT).replace(SECRET, "wrong")).await?.status, 401);
    let more = tokio::time::timeout(std::time::Duration::ZERO, listener.accept()).await;
    assert!(more.is_err(), "a request without the secret reached Segment");
    Ok(())
}
