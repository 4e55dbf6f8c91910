//! The stand-in answers as Segment does, fails on demand, and records every call.
//!
//! These tests use plain connections, because none depends on encryption; `envoy.rs` has the tests with TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use base64ct::{Base64, Encoding};
use sandbox::segment::{Behaviour, MAX_BATCH_BYTES, MAX_CALL_BYTES, Options, Recording, Segment, Transport};
use sandbox::stigg::{Reply, Webhook};
use serde_json::{Value, json};
use tokio::sync::Notify;

const PATIENCE: Duration = Duration::from_secs(10);
const WRITE_KEY: &str = "0123456789abcdefghijklmnopqrstuv";

async fn plain() -> Result<Segment> {
    Segment::start_with(Options { transport: Transport::Plain, ..Options::default() }).await
}

fn url(segment: &Segment, path: &str) -> String {
    format!("http://{}{path}", segment.addr())
}

fn basic(credentials: &str) -> String {
    format!("Basic {}", Base64::encode_string(credentials.as_bytes()))
}

fn authorized(call: Webhook) -> Webhook {
    call.header("authorization", &basic(&format!("{WRITE_KEY}:")))
}

async fn post(segment: &Segment, path: &str, body: impl Into<String>) -> Result<Reply> {
    authorized(Webhook::new(body.into())).send(&url(segment, path)).await
}

async fn track(segment: &Segment) -> Result<Reply> {
    post(segment, "/v1/track", r#"{"event":"e","userId":"u"}"#).await
}

/// An object of exactly this many bytes.
fn object_of(bytes: usize) -> String {
    let empty = r#"{"pad":""}"#;
    format!(r#"{{"pad":"{}"}}"#, "x".repeat(bytes - empty.len()))
}

/// Delays the answer to the first call, and notifies when that call has arrived.
fn delay_the_first(segment: &Segment, delay: Duration) -> Arc<Notify> {
    let arrived = Arc::new(Notify::new());
    let first = AtomicBool::new(true);
    segment.behave_with({
        let arrived = Arc::clone(&arrived);
        move |_| {
            if !first.swap(false, Ordering::Relaxed) {
                return Behaviour::Accept;
            }
            arrived.notify_one();
            Behaviour::Accept.after(delay)
        }
    });
    arrived
}

mod answers {
    use super::*;

    #[tokio::test]
    async fn success_and_a_record_of_the_call() -> Result<()> {
        let segment = plain().await?;
        let reply = track(&segment).await?;
        assert_eq!((reply.status, reply.json()), (200, json!({"success": true})));
        assert_eq!(reply.header("content-type"), Some("application/json"));

        let call = &segment.calls()[0];
        assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/v1/track"));
        assert_eq!(call.host, Some(segment.addr().to_string()));
        assert_eq!(call.sni, None);
        assert_eq!(format!("{:?}", call.version), "HTTP/1.1");
        assert_eq!(call.header("content-type"), Some("application/json"));
        assert_eq!(call.body, r#"{"event":"e","userId":"u"}"#);
        assert_eq!(call.json()["event"], "e");
        assert_eq!(call.write_key.as_deref(), Some(WRITE_KEY));
        assert_eq!((call.status, call.accepted), (Some(200), true));
        Ok(())
    }

    #[tokio::test]
    async fn success_over_http2() -> Result<()> {
        let segment = plain().await?;
        let call = authorized(Webhook::event(&json!({"event": "e"}))).http2();
        assert_eq!(call.send(&url(&segment, "/v1/track")).await?.status, 200);
        let call = &segment.calls()[0];
        assert_eq!(format!("{:?}", call.version), "HTTP/2.0");
        assert_eq!(call.host, Some(segment.addr().to_string()));
        Ok(())
    }

    #[tokio::test]
    async fn success_with_any_user_id_or_none() -> Result<()> {
        let segment = plain().await?;
        for body in ["{}", r#"{"event":"e"}"#, r#"{"event":"e","userId":7}"#] {
            assert_eq!(post(&segment, "/v1/track", body).await?.status, 200, "{body}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn by_the_write_key() -> Result<()> {
        let segment = plain().await?;
        for (authorization, status) in [
            (None, 401),
            (Some("Bearer abc".to_owned()), 401),
            (Some("Basic".to_owned()), 401),
            (Some("Basic %%%".to_owned()), 401),
            (Some(basic("no colon")), 401),
            (Some(basic(":")), 400),
            (Some(basic("abc:")), 400),
            (Some(basic("unknown to anybody:")), 200),
            (Some(basic(&format!("{WRITE_KEY}:a password"))), 200),
        ] {
            let mut call = Webhook::event(&json!({}));
            if let Some(authorization) = &authorization {
                call = call.header("authorization", authorization);
            }
            let reply = call.send(&url(&segment, "/v1/track")).await?;
            assert_eq!(reply.status, status, "{authorization:?}");
            assert_eq!(reply.json()["success"], status == 200, "{authorization:?}");
        }
        assert_eq!(segment.accepted_count(), 2);
        Ok(())
    }

    #[tokio::test]
    async fn by_the_body() -> Result<()> {
        let segment = plain().await?;
        for (body, status) in [
            ("".to_owned(), 400),
            ("{".to_owned(), 400),
            ("[]".to_owned(), 400),
            ("null".to_owned(), 400),
            ("{} {}".to_owned(), 400),
            (" {} ".to_owned(), 200),
            (object_of(MAX_CALL_BYTES), 200),
            (object_of(MAX_CALL_BYTES + 1), 400),
        ] {
            let reply = post(&segment, "/v1/track", body.clone()).await?;
            assert_eq!(reply.status, status, "{} bytes: {body:.10}", body.len());
        }
        Ok(())
    }

    #[tokio::test]
    async fn by_the_batch() -> Result<()> {
        let segment = plain().await?;
        let batch = |calls: &[Value]| json!({"batch": calls}).to_string();
        let call = |bytes| serde_json::from_str(&object_of(bytes));
        let full = vec![call(MAX_CALL_BYTES)?; MAX_BATCH_BYTES / MAX_CALL_BYTES];
        for (body, status) in [
            (batch(&[]), 200),
            (batch(&full[..15]), 200),
            (batch(&[call(MAX_CALL_BYTES + 1)?]), 400),
            (batch(&vec![call(MAX_CALL_BYTES)?; 16]), 400),
            (r#"{"batch":{}}"#.to_owned(), 400),
            (r#"{}"#.to_owned(), 400),
        ] {
            let reply = post(&segment, "/v1/batch", body.clone()).await?;
            assert_eq!(reply.status, status, "{} bytes: {body:.10}", body.len());
        }
        Ok(())
    }

    #[tokio::test]
    async fn not_found_elsewhere() -> Result<()> {
        let segment = plain().await?;
        assert_eq!(post(&segment, "/v1/identify", "{}").await?.status, 404);
        assert_eq!(post(&segment, "/v1/track/", "{}").await?.status, 404);
        let get = authorized(Webhook::new("")).method("GET".parse()?);
        assert_eq!(get.send(&url(&segment, "/v1/track")).await?.status, 404);
        Ok(())
    }
}

mod faults {
    use super::*;

    #[tokio::test]
    async fn the_script_comes_before_the_default() -> Result<()> {
        let segment = plain().await?;
        segment.behave(Behaviour::status(500));
        segment.script([Behaviour::too_many_requests(7), Behaviour::Accept]);

        let limited = track(&segment).await?;
        assert_eq!((limited.status, limited.header("retry-after")), (429, Some("7")));
        assert_eq!(limited.header("x-ratelimit-reset"), Some("7"));
        assert_eq!(track(&segment).await?.status, 200);
        assert_eq!(track(&segment).await?.status, 500);
        assert_eq!(track(&segment).await?.status, 500);

        let accepted: Vec<_> = segment.calls().iter().map(|call| (call.status, call.accepted)).collect();
        assert_eq!(accepted, [(Some(429), false), (Some(200), true), (Some(500), false), (Some(500), false)]);
        Ok(())
    }

    #[tokio::test]
    async fn by_content() -> Result<()> {
        let segment = plain().await?;
        segment.behave_with(|call| match call.json()["userId"].as_str() {
            Some("unlucky") => Behaviour::status(503),
            _ => Behaviour::Accept,
        });
        assert_eq!(post(&segment, "/v1/track", r#"{"userId":"unlucky"}"#).await?.status, 503);
        assert_eq!(post(&segment, "/v1/track", r#"{"userId":"u"}"#).await?.status, 200);
        Ok(())
    }

    #[tokio::test]
    async fn an_error_after_keeping_the_event() -> Result<()> {
        let segment = plain().await?;
        segment.behave(Behaviour::Answer {
            status: 502,
            headers: vec![("x-a".to_owned(), "b".to_owned())],
            body: "bad".to_owned(),
            accept: true,
        });
        let reply = track(&segment).await?;
        assert_eq!((reply.status, reply.header("x-a"), reply.text()), (502, Some("b"), "bad".to_owned()));
        assert_eq!(segment.accepted().len(), 1);
        Ok(())
    }

    #[tokio::test]
    async fn resets() -> Result<()> {
        let segment = plain().await?;
        for (behaviour, accepted) in [(Behaviour::ResetBeforeAccept, false), (Behaviour::ResetAfterAccept, true)] {
            segment.clear();
            segment.behave(behaviour);

            let addr = segment.addr();
            let read = tokio::task::spawn_blocking(move || {
                let mut stream = TcpStream::connect(addr)?;
                stream.write_all(b"POST /v1/track HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}")?;
                stream.read(&mut [0])
            });
            assert_eq!(read.await?.unwrap_err().kind(), ErrorKind::ConnectionReset);
            let calls = segment.calls();
            assert_eq!((calls.len(), calls[0].status, calls[0].accepted), (1, None, accepted));
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_reset_takes_every_stream_of_an_http2_connection() -> Result<()> {
        let segment = plain().await?;
        segment.behave(Behaviour::ResetBeforeAccept);
        let call = authorized(Webhook::new("{}")).http2();
        assert!(call.send(&url(&segment, "/v1/track")).await.is_err());
        assert_eq!(segment.wait_for(1, PATIENCE).await?[0].status, None);
        Ok(())
    }

    #[tokio::test]
    async fn a_caller_that_does_not_wait_leaves_a_call_without_a_status() -> Result<()> {
        let segment = plain().await?;
        let arrived = delay_the_first(&segment, PATIENCE);
        tokio::select! {
            reply = track(&segment) => panic!("answered: {reply:?}"),
            () = arrived.notified() => {}
        }
        let calls = segment.wait_for(1, PATIENCE / 2).await?;
        assert_eq!((calls[0].status, calls[0].accepted), (None, false));
        Ok(())
    }
}

mod ledger {
    use super::*;

    #[tokio::test]
    async fn calls_are_in_the_order_of_arrival() -> Result<()> {
        let segment = plain().await?;
        let arrived = delay_the_first(&segment, Duration::from_millis(100));
        let mut ended = segment.subscribe();
        let slow = post(&segment, "/v1/track", r#"{"n":1}"#);
        let fast = async {
            arrived.notified().await;
            post(&segment, "/v1/track", r#"{"n":2}"#).await
        };
        tokio::try_join!(slow, fast)?;

        let arrived: Vec<_> = segment.calls().iter().map(|call| call.json()["n"].clone()).collect();
        assert_eq!(arrived, [1, 2]);
        assert_eq!([ended.recv().await?.json()["n"].clone(), ended.recv().await?.json()["n"].clone()], [2, 1]);
        Ok(())
    }

    #[tokio::test]
    async fn a_request_whose_body_does_not_end_has_begun_and_is_no_call() -> Result<()> {
        let segment = plain().await?;
        let mut stream = TcpStream::connect(segment.addr())?;
        stream.write_all(b"POST /v1/track HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{")?;
        tokio::time::timeout(PATIENCE, async {
            while segment.requests_begun() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await?;
        drop(stream);
        track(&segment).await?;
        assert_eq!((segment.connections(), segment.requests_begun(), segment.calls().len()), (2, 2, 1));
        Ok(())
    }

    #[tokio::test]
    async fn clearing_forgets_past_and_pending_calls() -> Result<()> {
        let segment = plain().await?;
        let arrived = delay_the_first(&segment, Duration::from_millis(10));
        let clear = async {
            arrived.notified().await;
            segment.clear();
            Ok(())
        };
        tokio::try_join!(track(&segment), clear)?;
        assert_eq!((segment.connections(), segment.requests_begun(), segment.calls().len()), (0, 0, 0));
        track(&segment).await?;
        assert_eq!(segment.calls().len(), 1);
        Ok(())
    }

    #[tokio::test]
    async fn a_wait_that_times_out_tells_what_was_seen() -> Result<()> {
        let segment = plain().await?;
        track(&segment).await?;
        let error = segment.wait_for(2, Duration::from_millis(1)).await.unwrap_err();
        assert!(error.to_string().starts_with("1 of 2 calls within 1ms"), "{error}");
        Ok(())
    }

    #[tokio::test]
    async fn without_recording_calls_are_only_counted() -> Result<()> {
        let options = Options { transport: Transport::Plain, recording: Recording::Off, ..Options::default() };
        let segment = Segment::start_with(options).await?;
        track(&segment).await?;
        assert_eq!((segment.calls().len(), segment.accepted_count(), segment.requests_begun()), (0, 1, 1));
        Ok(())
    }
}

#[tokio::test]
async fn dropping_it_ends_its_connections_and_removes_its_file() -> Result<()> {
    let segment = Segment::start().await?;
    let ca_file = segment.ca_file().expect("it speaks TLS").to_owned();
    assert!(std::fs::read_to_string(&ca_file)?.starts_with("-----BEGIN CERTIFICATE-----"));
    let mut stream = TcpStream::connect(segment.addr())?;
    drop(segment);
    tokio::task::spawn_blocking(move || assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)))).await?;
    assert!(!ca_file.exists());
    Ok(())
}
