//! The filter maps a body as the reference does.
#![no_main]

#[path = "../../tests/src/reference/mod.rs"]
#[allow(dead_code, reason = "the other target has its own use for the rest")]
mod reference;

#[path = "../mutator.rs"]
mod mutator;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use reference::documents::Generator;

fuzz_target!(|body: &[u8]| {
    reference::compare(body);
    reference::compare_redacted(body);
    reference::places::compare_placed(body);
    reference::trimmed::compare_trimmed(body);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutator::mutate(data, size, max_size, seed, Generator::event)
});
