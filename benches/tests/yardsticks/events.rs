//! The Lua filter of the benchmark maps every event as the filter does.

use anyhow::Result;
use benches::yardstick::{Gateway, Variant};
use sandbox::envoy::Options;
use sandbox::segment::Segment;
use sandbox::stigg::{PATH, Webhook};
use serde_json::json;
use tests::outcome::{Outcome, map_now};
use tests::reference::documents::Generator;

#[tokio::test]
async fn generated_events_are_mapped_in_lua_as_by_the_filter() -> Result<()> {
    const SECRET: &str = "whsec-0123456789";
    let segment = Segment::start().await?;
    let options = Options::default().env("SEGMENT_WRITE_KEY", "wk0123456789").env("STIGG_WEBHOOK_SECRET", SECRET);
    // A thousand take less than a second.
    let bucket = "/static_resources/listeners/webhooks/filter_chains/0/filters/0/typed_config/http_filters/local_ratelimit\
                  /typed_config/token_bucket/max_tokens";
    let change = |config: sandbox::envoy::Config| config.set(bucket, json!(1_000_000));
    let gateway = Gateway::start(Variant::Lua, &segment, change, options, &[]).await?;
    for seed in 0..2_000 {
        let body = Generator::new(seed).event();
        segment.clear();
        let reply = Webhook::new(body.clone()).secret(SECRET).send(&gateway.envoy.url(PATH)).await?;
        let calls = segment.calls();
        let shown = || format!("seed {seed}: {}\nanswered {}", String::from_utf8_lossy(&body), reply.text());
        match (map_now(r#"{"write_key":{"value":"wk0123456789"}}"#, &body), calls.as_slice()) {
            (Outcome::Call(expected), [call]) => {
                assert_eq!(String::from_utf8_lossy(&call.body), String::from_utf8_lossy(&expected), "{}", shown());
            }
            (Outcome::Answer(status, code), []) => {
                assert_eq!(u32::from(reply.status), status, "{}", shown());
                assert!(status == 204 || reply.json()["code"] == code, "not {code}; {}", shown());
            }
            (expected, calls) => panic!("{expected:?} expected, {} calls; {}", calls.len(), shown()),
        }
    }
    Ok(())
}
