//! Mutations that know JSON, in addition to libFuzzer's, which do not.

use crate::reference::documents::Generator;

/// Makes another document of the first `size` bytes in `data`, as libFuzzer asks for it, and returns its size. Once in
/// a while the document is a new one.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    new: impl FnOnce(&mut Generator) -> Vec<u8>,
) -> usize {
    let mut generator = Generator::new(u64::from(seed));
    let document = match seed % 16 {
        0 => new(&mut generator),
        1..6 => generator.mutate(&data[..size]),
        _ => return libfuzzer_sys::fuzzer_mutate(data, size, max_size),
    };
    let size = document.len().min(max_size);
    data[..size].copy_from_slice(&document[..size]);
    size
}
