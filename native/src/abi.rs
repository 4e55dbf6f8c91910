//! The border to Envoy: the hooks that it calls, the calls that it takes, and a safe function for each call. All `unsafe`
//! is here.
//!
//! The ABI is `source/extensions/dynamic_modules/abi/abi.h` of Envoy 1.38 to 1.40
//! (<https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/advanced/dynamic_modules>).

use std::borrow::Cow;
use std::ffi::{c_char, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use stigg_segment::host::{self, Failed};
use stigg_segment::stream::Action;

use crate::{Filter, Request};

/// Some bytes, as both sides hand them over.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Bytes<'a> {
    data: *const u8,
    size: usize,
    life: PhantomData<&'a [u8]>,
}

// SAFETY: this is a shared slice in another form.
unsafe impl Send for Bytes<'_> {}
// SAFETY: as above.
unsafe impl Sync for Bytes<'_> {}

impl<'a> Bytes<'a> {
    pub const NONE: Bytes<'static> = Bytes { data: std::ptr::null(), size: 0, life: PhantomData };

    pub fn of(bytes: &'a [u8]) -> Self {
        Bytes { data: bytes.as_ptr(), size: bytes.len(), life: PhantomData }
    }

    pub fn get(self) -> &'a [u8] {
        if self.data.is_null() {
            return &[];
        }
        // SAFETY: it was made from a slice, or Envoy has filled it with a pointer to that many bytes. Each function that
        // lets Envoy fill it bounds its life by a borrow of `Envoy`, which ends with the next call that changes anything
        // and with the hook. Envoy promises the bytes until then.
        unsafe { std::slice::from_raw_parts(self.data, self.size) }
    }
}

/// A header, as both sides hand it over.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Header<'a> {
    pub name: Bytes<'a>,
    pub value: Bytes<'a>,
}

/// Headers, for as long as none is changed.
pub struct Headers<'a>(Vec<Header<'a>>);

impl host::Headers for Headers<'_> {
    fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.0.iter().map(|header| (header.name.get(), header.value.get()))
    }
}

impl Headers<'_> {
    /// Their names.
    pub fn names(&self) -> Vec<Vec<u8>> {
        self.0.iter().map(|header| header.name.get().to_vec()).collect()
    }
}

/// Which headers.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Map {
    RequestHeaders = 0,
    RequestTrailers = 1,
}

/// Which part of the request's body.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Part {
    /// What this hook has brought.
    Received = 0,
    /// What earlier hooks have brought.
    Buffered = 1,
}

/// How grave a line of the log is.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Level {
    Info = 2,
    Warning = 3,
    Error = 4,
}

/// Writes a line into Envoy's log.
pub fn log(level: Level, line: &str) {
    // SAFETY: Envoy only reads the line.
    unsafe { envoy_dynamic_module_callback_log(level as u32, Bytes::of(line.as_bytes())) }
}

/// A series of a metric: Envoy's number for the metric, and the values of its labels.
pub struct Series {
    id: usize,
    values: Vec<Bytes<'static>>,
}

/// Envoy, while it takes a configuration.
pub struct Configuring(*mut c_void);

impl Configuring {
    /// Defines a counter and lets it begin at 0; `None` if Envoy does not take it.
    pub fn define(&self, name: &str, labels: Vec<(&'static str, &'static str)>) -> Option<Series> {
        let (names, values): (Vec<_>, Vec<_>) =
            labels.into_iter().map(|(name, value)| (Bytes::of(name.as_bytes()), Bytes::of(value.as_bytes()))).unzip();
        let mut id = 0;
        // SAFETY: Envoy reads the name and the names of the labels, and writes one number. The configuration is the one
        // that it is taking.
        let result = unsafe {
            envoy_dynamic_module_callback_http_filter_config_define_counter(
                self.0,
                Bytes::of(name.as_bytes()),
                names.as_ptr(),
                names.len(),
                &mut id,
            )
        };
        let series = (result == SUCCESS).then_some(Series { id, values })?;
        self.begin(&series);
        Some(series)
    }

    /// Lets a counter begin at 0. Envoy 1.38 has no such call: there a counter begins with its first event.
    fn begin(&self, counter: &Series) {
        const NAME: &std::ffi::CStr = c"envoy_dynamic_module_callback_http_filter_config_increment_counter";
        const ANYWHERE: *mut c_void = std::ptr::null_mut();
        // SAFETY: the name ends with a zero byte.
        let address = unsafe { dlsym(ANYWHERE, NAME.as_ptr()) };
        // SAFETY: null is `None`; else this is Envoy's function of that name, which has this type.
        let increment = unsafe { std::mem::transmute::<*mut c_void, Option<Increment>>(address) };
        if let Some(increment) = increment {
            // SAFETY: Envoy reads the values. The number is from the same configuration, which it is taking.
            unsafe { increment(self.0, counter.id, counter.values.as_ptr(), counter.values.len(), 0) };
        }
    }
}

/// Envoy, as one hook of one request sees it.
pub struct Envoy(*mut c_void);

impl Envoy {
    /// All headers of a map.
    pub fn headers(&self, map: Map) -> Result<Headers<'_>, Failed> {
        // SAFETY: Envoy has the stream until the hook ends.
        let count = unsafe { envoy_dynamic_module_callback_http_get_headers_size(self.0, map as u32) };
        let mut headers = vec![Header { name: Bytes::NONE, value: Bytes::NONE }; count];
        // SAFETY: Envoy writes as many headers as it has said that there are.
        let done = unsafe { envoy_dynamic_module_callback_http_get_headers(self.0, map as u32, headers.as_mut_ptr()) };
        if done { Ok(Headers(headers)) } else { Err(Failed) }
    }

    /// Sets a header to one value, or removes it.
    pub fn set_header(&mut self, map: Map, name: &[u8], value: Option<&[u8]>) -> Result<(), Failed> {
        let (name, value) = (Bytes::of(name), value.map_or(Bytes::NONE, Bytes::of));
        // SAFETY: Envoy only reads the two slices; a value of null removes the header.
        done(unsafe { envoy_dynamic_module_callback_http_set_header(self.0, map as u32, name, value) })
    }

    /// The size of the body that has come.
    pub fn body_size(&self) -> usize {
        let sizes = self.parts().iter().map(|part| {
            // SAFETY: Envoy has the stream until the hook ends.
            unsafe { envoy_dynamic_module_callback_http_get_body_size(self.0, *part as u32) }
        });
        sizes.fold(0, usize::saturating_add)
    }

    /// The body that has come: where it is if it is in one piece, else a copy.
    pub fn body(&self) -> Cow<'_, [u8]> {
        let mut pieces = Vec::new();
        for part in self.parts() {
            // SAFETY: Envoy has the stream until the hook ends.
            let count = unsafe { envoy_dynamic_module_callback_http_get_body_chunks_size(self.0, *part as u32) };
            let mut of_part = vec![Bytes::NONE; count];
            // SAFETY: Envoy writes as many chunks as it has said that there are.
            unsafe { envoy_dynamic_module_callback_http_get_body_chunks(self.0, *part as u32, of_part.as_mut_ptr()) };
            pieces.extend(of_part.into_iter().map(Bytes::get).filter(|piece| !piece.is_empty()));
        }
        match pieces.as_slice() {
            [whole] => Cow::Borrowed(whole),
            pieces => Cow::Owned(pieces.concat()),
        }
    }

    /// Puts other bytes in the body's place.
    pub fn replace_body(&mut self, body: &[u8]) -> Result<(), Failed> {
        for part in self.parts() {
            // SAFETY: only a number changes hands. More than there is means all.
            unsafe { envoy_dynamic_module_callback_http_drain_body(self.0, *part as u32, usize::MAX) };
        }
        // In the hook for the trailers nothing is received.
        let appended = [Part::Received, Part::Buffered].into_iter().any(|part| {
            // SAFETY: Envoy only reads the slice.
            unsafe { envoy_dynamic_module_callback_http_append_body(self.0, part as u32, Bytes::of(body)) }
        });
        done(appended)
    }

    /// The parts of the body, in their order. If a filter before this one has held the whole body, what is received is
    /// what is buffered.
    fn parts(&self) -> &'static [Part] {
        // SAFETY: Envoy has the stream until the hook ends.
        if unsafe { envoy_dynamic_module_callback_http_received_buffered_request_body(self.0) } {
            &[Part::Received]
        } else {
            &[Part::Buffered, Part::Received]
        }
    }

    /// A value of the filter state.
    pub fn filter_state(&self, key: &str) -> Option<Vec<u8>> {
        let mut value = Bytes::NONE;
        // SAFETY: Envoy reads the key and writes one value.
        let found = unsafe {
            envoy_dynamic_module_callback_http_get_filter_state_bytes(self.0, Bytes::of(key.as_bytes()), &mut value)
        };
        found.then(|| value.get().to_vec())
    }

    /// Sets a value of the filter state. A stream without one does no harm.
    pub fn set_filter_state(&mut self, key: &str, value: &[u8]) {
        let (key, value) = (Bytes::of(key.as_bytes()), Bytes::of(value));
        // SAFETY: Envoy only reads the two slices.
        unsafe { envoy_dynamic_module_callback_http_set_filter_state_bytes(self.0, key, value) };
    }

    /// Lets Envoy look for the route again.
    pub fn clear_route_cache(&mut self) {
        // SAFETY: Envoy has the stream until the hook ends.
        unsafe { envoy_dynamic_module_callback_http_clear_route_cache(self.0) }
    }

    /// Answers the request.
    pub fn send_response(&mut self, status: u32, headers: &[(&str, &str)], body: &[u8], details: &str) {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| Header { name: Bytes::of(name.as_bytes()), value: Bytes::of(value.as_bytes()) })
            .collect();
        let (body, details) = (Bytes::of(body), Bytes::of(details.as_bytes()));
        // SAFETY: Envoy only reads the slices.
        unsafe {
            envoy_dynamic_module_callback_http_send_response(
                self.0,
                status,
                headers.as_ptr(),
                headers.len(),
                body,
                details,
            );
        }
    }

    /// Adds one to a counter. An Envoy that does not count does no harm.
    pub fn increment(&mut self, counter: &Series) {
        let Series { id, values } = counter;
        // SAFETY: Envoy reads the values. The number is from this stream's configuration.
        unsafe {
            envoy_dynamic_module_callback_http_filter_increment_counter(self.0, *id, values.as_ptr(), values.len(), 1);
        }
    }
}

fn done(done: bool) -> Result<(), Failed> {
    if done { Ok(()) } else { Err(Failed) }
}

const SUCCESS: u32 = 0;

type Increment = unsafe extern "C" fn(*mut c_void, usize, *const Bytes<'_>, usize, u64) -> u32;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn envoy_dynamic_module_callback_log(level: u32, line: Bytes<'_>);
    fn envoy_dynamic_module_callback_http_filter_config_define_counter(
        config: *mut c_void,
        name: Bytes<'_>,
        labels: *const Bytes<'_>,
        count: usize,
        id: *mut usize,
    ) -> u32;
    fn envoy_dynamic_module_callback_http_filter_increment_counter(
        stream: *mut c_void,
        id: usize,
        values: *const Bytes<'_>,
        count: usize,
        by: u64,
    ) -> u32;
    fn envoy_dynamic_module_callback_http_get_headers_size(stream: *mut c_void, map: u32) -> usize;
    fn envoy_dynamic_module_callback_http_get_headers(stream: *mut c_void, map: u32, headers: *mut Header<'_>) -> bool;
    fn envoy_dynamic_module_callback_http_set_header(
        stream: *mut c_void,
        map: u32,
        name: Bytes<'_>,
        value: Bytes<'_>,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_received_buffered_request_body(stream: *mut c_void) -> bool;
    fn envoy_dynamic_module_callback_http_get_body_size(stream: *mut c_void, part: u32) -> usize;
    fn envoy_dynamic_module_callback_http_get_body_chunks_size(stream: *mut c_void, part: u32) -> usize;
    fn envoy_dynamic_module_callback_http_get_body_chunks(
        stream: *mut c_void,
        part: u32,
        chunks: *mut Bytes<'_>,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_drain_body(stream: *mut c_void, part: u32, size: usize) -> bool;
    fn envoy_dynamic_module_callback_http_append_body(stream: *mut c_void, part: u32, data: Bytes<'_>) -> bool;
    fn envoy_dynamic_module_callback_http_get_filter_state_bytes(
        stream: *mut c_void,
        key: Bytes<'_>,
        value: *mut Bytes<'_>,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_set_filter_state_bytes(
        stream: *mut c_void,
        key: Bytes<'_>,
        value: Bytes<'_>,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_clear_route_cache(stream: *mut c_void);
    fn envoy_dynamic_module_callback_http_send_response(
        stream: *mut c_void,
        status: u32,
        headers: *const Header<'_>,
        count: usize,
        body: Bytes<'_>,
        details: Bytes<'_>,
    );
}

/// The hooks. Envoy calls those of a configuration on its main thread, and those of a request on the request's thread.
/// It keeps what a `new` hook has returned until it hands it to the `destroy` hook, and hands it to no hook after that.
pub mod hooks {
    use super::*;

    const CONTINUE: u32 = 0;
    /// For a body, Envoy also keeps what has come.
    const STOP: u32 = 1;

    fn status(action: Action) -> u32 {
        match action {
            Action::Continue => CONTINUE,
            Action::Pause => STOP,
        }
    }

    /// Runs a hook of a request. Without a request, because it could not be made, the client gets a 500.
    fn run(request: *const Request, stream: *mut c_void, hook: impl FnOnce(&Request, &mut Envoy) -> Action) -> u32 {
        if request.is_null() {
            Envoy(stream).send_response(500, &[], b"", "stigg_segment_internal");
            return STOP;
        }
        // SAFETY: Envoy hands over what the hook below has returned.
        unsafe { Rc::increment_strong_count(request) };
        // SAFETY: as above. This one may be the last, if Envoy ends the request within a call of this hook.
        let request = unsafe { Rc::from_raw(request) };
        status(hook(&request, &mut Envoy(stream)))
    }

    /// Loads the library. The version is that of the newest Envoy that it was tested with; others only warn.
    #[unsafe(no_mangle)]
    pub extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
        // The message can contain a customer's data.
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            log(Level::Error, &format!("stigg_segment: this is a bug, please report it: a panic at {place}"));
        }));
        c"v0.2.0".as_ptr()
    }

    #[unsafe(no_mangle)]
    pub extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
        config: *mut c_void,
        _name: Bytes<'_>,
        json: Bytes<'_>,
    ) -> *const Filter {
        let filter = catch_unwind(AssertUnwindSafe(|| Filter::new(&Configuring(config), json.get())));
        filter.ok().flatten().map_or(std::ptr::null(), |filter| Arc::into_raw(Arc::new(filter)))
    }

    #[unsafe(no_mangle)]
    pub extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(filter: *const Filter) {
        // SAFETY: Envoy gives back what the hook above has returned.
        drop(unsafe { Arc::from_raw(filter) });
    }

    #[unsafe(no_mangle)]
    pub extern "C" fn envoy_dynamic_module_on_http_filter_new(filter: *const Filter, _: *mut c_void) -> *const Request {
        // SAFETY: Envoy hands over what the hook for a configuration has returned.
        unsafe { Arc::increment_strong_count(filter) };
        // SAFETY: as above.
        let filter = unsafe { Arc::from_raw(filter) };
        let request = catch_unwind(AssertUnwindSafe(|| Rc::new(Request::new(filter))));
        request.map_or(std::ptr::null(), Rc::into_raw)
    }

    #[unsafe(no_mangle)]
    pub extern "C" fn envoy_dynamic_module_on_http_filter_destroy(request: *const Request) {
        if !request.is_null() {
            // SAFETY: Envoy gives back what the hook above has returned.
            drop(unsafe { Rc::from_raw(request) });
        }
    }

    #[unsafe(no_mangle)]
    pub extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
        stream: *mut c_void,
        request: *const Request,
        end_of_stream: bool,
    ) -> u32 {
        run(request, stream, |request, envoy| request.on_request_headers(envoy, end_of_stream))
    }

    #[unsafe(no_mangle)]
    pub extern "C" fn envoy_dynamic_module_on_http_filter_request_body(
        stream: *mut c_void,
        request: *const Request,
        end_of_stream: bool,
    ) -> u32 {
        run(request, stream, |request, envoy| request.on_request_body(envoy, end_of_stream))
    }

    #[unsafe(no_mangle)]
    pub extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(
        stream: *mut c_void,
        request: *const Request,
    ) -> u32 {
        run(request, stream, Request::on_request_trailers)
    }

    /// Hooks that Envoy wants to exist, and that have nothing to do. They ignore their arguments, and Envoy ignores the
    /// result of those that have none.
    macro_rules! idle {
        ($($hook:ident)+) => {
            $(
                #[unsafe(no_mangle)]
                pub extern "C" fn $hook() -> u32 {
                    CONTINUE
                }
            )+
        };
    }

    idle! {
        envoy_dynamic_module_on_http_filter_response_headers
        envoy_dynamic_module_on_http_filter_response_body
        envoy_dynamic_module_on_http_filter_response_trailers
        envoy_dynamic_module_on_http_filter_stream_complete
        envoy_dynamic_module_on_http_filter_http_callout_done
        envoy_dynamic_module_on_http_filter_http_stream_headers
        envoy_dynamic_module_on_http_filter_http_stream_data
        envoy_dynamic_module_on_http_filter_http_stream_trailers
        envoy_dynamic_module_on_http_filter_http_stream_complete
        envoy_dynamic_module_on_http_filter_http_stream_reset
        envoy_dynamic_module_on_http_filter_scheduled
        envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark
        envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark
    }
}
