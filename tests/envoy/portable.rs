//! The table of [`tests::cases`] on a real Envoy, on both shells, in each of the two ways to hold a request back.
//! `second_host` holds another implementation of proxy-wasm to the same table.

use anyhow::Result;
use sandbox::segment::Segment;
use tests::cases::cases;
use tests::edge::{Edge, buffered, refuses_large_bodies};
use tests::on_both_shells;
use tests::portable::{hold_to, options};

on_both_shells! {
    holds_on_envoy_while_headers_are_held
    holds_on_envoy_while_a_buffer_filter_holds_all
}

async fn holds_on_envoy_while_headers_are_held() -> Result<()> {
    let edge = Edge::start_between(Segment::start().await?, Ok, options()).await?;
    let mut cases = cases()?;
    if refuses_large_bodies().await? {
        cases.retain(|case| !case.is_large());
    }
    hold_to(cases, &edge, |_, _| Ok(())).await
}

async fn holds_on_envoy_while_a_buffer_filter_holds_all() -> Result<()> {
    let edge = Edge::start_between(Segment::start().await?, buffered, options()).await?;
    hold_to(cases()?, &edge, |_, _| Ok(())).await
}
