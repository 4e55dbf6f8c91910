//! The cases of [`tests::cases`] on a real Envoy, in each of the two ways to hold a request back. `second_host` runs the same
//! cases on another implementation of proxy-wasm.

use anyhow::Result;
use sandbox::segment::Segment;
use tests::case_runner::{hold_to, options};
use tests::cases::cases;
use tests::edge::{Edge, buffered, rejects_large_bodies};

#[tokio::test]
async fn the_cases_hold_while_envoy_holds_headers() -> Result<()> {
    let edge = Edge::start_between(Segment::start().await?, Ok, options()).await?;
    let mut cases = cases()?;
    if rejects_large_bodies().await? {
        cases.retain(|case| !case.is_large());
    }
    hold_to(cases, &edge, |_, _| Ok(())).await
}

#[tokio::test]
async fn the_cases_hold_while_a_buffer_filter_holds_the_request() -> Result<()> {
    let edge = Edge::start_between(Segment::start().await?, buffered, options()).await?;
    hold_to(cases()?, &edge, |_, _| Ok(())).await
}
