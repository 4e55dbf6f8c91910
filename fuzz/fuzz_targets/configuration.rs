//! A configuration is accepted or rejected without a panic, in one line, and without revealing a secret.
#![no_main]

#[path = "../../tests/src/reference/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the other target has its own use for the rest")]
mod reference;

#[path = "../mutator.rs"]
mod mutator;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use reference::documents::Generator;

fuzz_target!(|json: &[u8]| {
    reference::configuration::check(json);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutator::mutate(data, size, max_size, seed, Generator::configuration)
});
