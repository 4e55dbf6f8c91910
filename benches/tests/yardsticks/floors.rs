//! The floors and the ten-minute Lua do less than the filter. For the benchmark's events they send the same bytes.

use anyhow::Result;
use benches::yardstick::{Gateway, Variant};
use sandbox::segment::{Behaviour, Segment};
use sandbox::stigg::{PATH, Webhook};
use sandbox::synthetic;
use tests::case_runner::options;
use tests::edge::SECRET;

#[tokio::test]
async fn the_events_of_the_benchmark_become_the_same_calls() -> Result<()> {
    let mut expected = std::collections::BTreeMap::new();
    for variant in [Variant::Shipped, Variant::Native, Variant::Floor, Variant::NativeFloor, Variant::Script] {
        let segment = Segment::start().await?;
        // The floors do not send the write key.
        segment.behave(Behaviour::status(200));
        let gateway = Gateway::start(variant, &segment, Ok, options(), &[]).await?;
        for size in [2048, 16 * 1024, 31 * 1024] {
            let event = synthetic::event(size, Some("acme"));
            segment.clear();
            let reply = Webhook::new(event.clone()).secret(SECRET).send(&gateway.envoy.url(PATH)).await?;
            assert_eq!(reply.status, 200, "{variant:?}: {}", reply.text());
            let body = String::from_utf8(segment.calls()[0].body.to_vec())?;
            assert_eq!(*expected.entry(size).or_insert_with(|| body.clone()), body, "{variant:?}");
        }
        if variant.reads_the_event() {
            let event = synthetic::event(2048, None);
            let reply = Webhook::new(event).secret(SECRET).send(&gateway.envoy.url(PATH)).await?;
            assert_eq!(reply.status, 204, "{variant:?}");
        }
    }
    Ok(())
}
