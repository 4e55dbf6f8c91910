//! The floors and the ten-minute Lua do less than the filter. For the benchmark's events they send the same bytes.

use anyhow::Result;
use benches::yardstick::{Gateway, Variant};
use sandbox::segment::{Behaviour, Segment};
use sandbox::stigg::{PATH, Webhook};
use sandbox::synthetic;
use tests::case_runner::options;
use tests::edge::SECRET;
use tests::outcome::{Outcome, map};

#[tokio::test]
async fn the_events_of_the_benchmark_become_the_same_calls() -> Result<()> {
    for variant in [Variant::Floor, Variant::NativeFloor, Variant::Script, Variant::Native] {
        let segment = Segment::start().await?;
        // The floors do not send the write key.
        segment.behave(Behaviour::status(200));
        let gateway = Gateway::start(variant, &segment, Ok, options(), &[]).await?;
        for size in [2048, 16 * 1024, 31 * 1024] {
            let event = synthetic::event(size, Some("acme"));
            segment.clear();
            let reply = Webhook::new(event.clone()).secret(SECRET).send(&gateway.envoy.url(PATH)).await?;
            assert_eq!(reply.status, 200, "{variant:?}: {}", reply.text());
            let Outcome::Call(expected) = map(event.as_bytes()) else { panic!("no call") };
            let body = segment.calls()[0].body.clone();
            assert_eq!(String::from_utf8_lossy(&body), String::from_utf8_lossy(&expected), "{variant:?}");
        }
        if variant.reads_the_event() {
            let event = synthetic::event(2048, None);
            let reply = Webhook::new(event).secret(SECRET).send(&gateway.envoy.url(PATH)).await?;
            assert_eq!(reply.status, 204, "{variant:?}");
        }
    }
    Ok(())
}
