//! The calls to a proxy-wasm host: the ABI itself, and a safe function for each call. All `unsafe` is here.
//!
//! The SDK's wrappers panic on a status that they do not know. A panic takes the whole VM down with every request in it,
//! so a request calls the ABI itself: then one request is answered with a 500.

use proxy_wasm::types::{BufferType, MapType, MetricType};

use crate::host::Failed;

const OK: u32 = 0;

/// The map as the host serializes it.
pub fn get_map(map: MapType) -> Result<Vec<u8>, Failed> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the host writes one pointer and one size.
    let status = unsafe { proxy_get_header_map_pairs(map as u32, &mut data, &mut size) };
    take(status, data, size)
}

/// Replaces the whole map.
pub fn set_map(map: MapType, serialized: &[u8]) -> Result<(), Failed> {
    // SAFETY: the host only reads the slice.
    done(unsafe { proxy_set_header_map_pairs(map as u32, serialized.as_ptr(), serialized.len()) })
}

/// Sets a name of a map to one value.
pub fn set_value(map: MapType, name: &[u8], value: &[u8]) -> Result<(), Failed> {
    // SAFETY: the host only reads the two slices.
    done(unsafe { proxy_replace_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// Removes every value of a name from a map.
pub fn remove_value(map: MapType, name: &[u8]) -> Result<(), Failed> {
    // SAFETY: the host only reads the slice.
    done(unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// The first `size` bytes of a buffer.
pub fn get_buffer(buffer: BufferType, size: usize) -> Result<Vec<u8>, Failed> {
    let (mut data, mut got) = (std::ptr::null_mut(), 0);
    // SAFETY: the host writes one pointer and one size.
    let status = unsafe { proxy_get_buffer_bytes(buffer as u32, 0, size, &mut data, &mut got) };
    take(status, data, got)
}

/// Puts `data` in place of `size` bytes of a buffer, from `start` on. A start beyond the end appends.
pub fn set_buffer(buffer: BufferType, start: usize, size: usize, data: &[u8]) -> Result<(), Failed> {
    // SAFETY: the host only reads the slice.
    done(unsafe { proxy_set_buffer_bytes(buffer as u32, start, size, data.as_ptr(), data.len()) })
}

/// A property of the host.
pub fn get_property(path: &[&str]) -> Result<Vec<u8>, Failed> {
    let path = path.join("\0");
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the host reads the path and writes one pointer and one size.
    let status = unsafe { proxy_get_property(path.as_ptr(), path.len(), &mut data, &mut size) };
    take(status, data, size)
}

/// Sets a property of the request.
pub fn set_property(name: &str, value: &[u8]) -> Result<(), Failed> {
    // SAFETY: the host only reads the two slices.
    done(unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// Calls a function that the host has beyond the specification, without arguments. Its result is dropped.
pub fn call_foreign_function(name: &str) -> Result<(), Failed> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the host reads the name and no arguments; it writes one pointer and one size.
    let status =
        unsafe { proxy_call_foreign_function(name.as_ptr(), name.len(), std::ptr::null(), 0, &mut data, &mut size) };
    let _result = take(status, data, size);
    done(status)
}

/// The time since 1970, in nanoseconds.
pub fn get_current_time() -> Result<u64, Failed> {
    let mut time = 0;
    // SAFETY: the host writes one number.
    done(unsafe { proxy_get_current_time_nanoseconds(&mut time) })?;
    Ok(time)
}

/// Defines a metric and returns the host's number for it.
pub fn define_metric(kind: MetricType, name: &str) -> Result<u32, Failed> {
    let mut id = 0;
    // SAFETY: the host reads the name and writes one number.
    done(unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &mut id) })?;
    Ok(id)
}

/// Adds to a counter.
pub fn increment_metric(id: u32, by: i64) -> Result<(), Failed> {
    // SAFETY: only numbers change hands.
    done(unsafe { proxy_increment_metric(id, by) })
}

/// Answers the request. The headers are a serialized map.
pub fn send_local_response(status: u32, details: &str, body: &[u8], headers: &[u8]) -> Result<(), Failed> {
    const NO_GRPC_STATUS: i32 = -1;
    // SAFETY: the host only reads the three slices.
    done(unsafe {
        proxy_send_local_response(
            status,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            NO_GRPC_STATUS,
        )
    })
}

fn done(status: u32) -> Result<(), Failed> {
    if status == OK { Ok(()) } else { Err(Failed) }
}

/// Takes over what the host has allocated.
fn take(status: u32, data: *mut u8, size: usize) -> Result<Vec<u8>, Failed> {
    if status != OK || data.is_null() {
        return Err(Failed);
    }
    // SAFETY: the host let the SDK's `proxy_on_memory_allocate` allocate `size` bytes, which makes a boxed slice of that
    // size with the global allocator; it filled them and gave them away.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

// https://github.com/proxy-wasm/spec/tree/main/abi-versions/v0.2.1
#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_set_header_map_pairs(map: u32, data: *const u8, size: usize) -> u32;
    fn proxy_get_buffer_bytes(buffer: u32, start: usize, max: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_buffer_bytes(buffer: u32, start: usize, size: usize, data: *const u8, data_size: usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        results: *mut *mut u8,
        results_size: *mut usize,
    ) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
}
