//! The speed of the mapping alone, in bytes a second, compared with serde_json: its full parse and its fastest skip.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros write functions; a benchmark fails by panicking"
)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sandbox::synthetic;
use serde::de::IgnoredAny;
use serde_json::Value;
use stigg_segment::config::Config;

/// Sizes of the events, in bytes.
const SIZES: [usize; 4] = [512, 2048, 16 * 1024, 31 * 1024];

fn mapping(c: &mut Criterion) {
    let config = Config::parse(b"{}", |_| Ok("x".repeat(32))).unwrap();
    let environment = config.environment(b"/").unwrap();
    let mut group = c.benchmark_group("mapping");
    for size in SIZES {
        let event = synthetic::event(size, Some("acme"));
        let body = event.as_bytes();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_with_input(BenchmarkId::new("this filter", size), body, |b, body| {
            b.iter(|| environment.mapping.map(body, usize::MAX, |_| {}, || None));
        });
        group.bench_with_input(BenchmarkId::new("serde_json, a tree of values", size), body, |b, body| {
            b.iter(|| serde_json::from_slice::<Value>(body).unwrap());
        });
        group.bench_with_input(BenchmarkId::new("serde_json, nothing kept", size), body, |b, body| {
            b.iter(|| serde_json::from_slice::<IgnoredAny>(body).unwrap());
        });
    }
}

criterion_group!(benches, mapping);
criterion_main!(benches);
