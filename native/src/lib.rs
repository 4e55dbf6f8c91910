//! The filter as a dynamic module of Envoy: it maps Envoy's hooks to a [`Stream`], and the stream's questions to the calls
//! in `abi.rs`.

#[allow(unsafe_code, reason = "this file is the border to Envoy, and the only one with unsafe code")]
mod abi;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stigg_segment::config::{Config, Shell};
use stigg_segment::host::{Failed, Host};
use stigg_segment::metrics::{Metric, Registry};
use stigg_segment::stream::{Action, Stream};

use crate::abi::{Configuring, Envoy, Headers, Level, Map, Series};

/// A configuration. All threads share it.
struct Filter {
    config: Arc<Config>,
    metrics: Registry<Series>,
}

impl Filter {
    /// Takes a configuration; `None` rejects it.
    fn new(envoy: &Configuring, json: &[u8]) -> Option<Self> {
        match Config::load(Shell::Native, json.len(), Some(json), |name| std::env::var(name)) {
            Ok(config) => {
                config.notes.iter().for_each(|note| abi::log(Level::Info, note));
                config.warnings.iter().for_each(|warning| abi::log(Level::Warning, warning));
                let metrics = Registry::new(|metric| envoy.define(&metric.family(), metric.labels()));
                Some(Filter { config: Arc::new(config), metrics })
            }
            Err(error) => {
                abi::log(Level::Error, &error.to_string());
                None
            }
        }
    }
}

/// A request. It stays on one thread.
struct Request {
    filter: Arc<Filter>,
    stream: RefCell<Stream>,
}

impl Request {
    fn new(filter: Arc<Filter>) -> Self {
        let stream = RefCell::new(Stream::new(Some(filter.config.clone())));
        Request { filter, stream }
    }

    fn on_request_headers(&self, envoy: &mut Envoy, end_of_stream: bool) -> Action {
        self.decode(envoy, "request_headers", |stream, host| stream.on_request_headers(host, end_of_stream))
    }

    fn on_request_body(&self, envoy: &mut Envoy, end_of_stream: bool) -> Action {
        self.decode(envoy, "request_body", |stream, host| {
            stream.on_request_body(host, host.envoy.body_size(), end_of_stream)
        })
    }

    fn on_request_trailers(&self, envoy: &mut Envoy) -> Action {
        self.decode(envoy, "request_trailers", |stream, host| stream.on_request_trailers(host))
    }

    /// Runs a hook of the request. If it panics, the request is answered with a 500.
    fn decode(&self, envoy: &mut Envoy, name: &str, hook: impl FnOnce(&mut Stream, &mut Native) -> Action) -> Action {
        let action = self.with_stream(envoy, name, hook);
        let answered = || self.with_stream(envoy, "panic", |stream, host| stream.fail(host));
        action.or_else(answered).unwrap_or(Action::Pause)
    }

    /// Runs a hook; `None` if it panics. Then the panic is in the log.
    fn with_stream<T>(
        &self,
        envoy: &mut Envoy,
        name: &str,
        hook: impl FnOnce(&mut Stream, &mut Native) -> T,
    ) -> Option<T> {
        // It is borrowed if Envoy calls a hook within a call of another one. No hook of a request is called like that.
        let mut stream = self.stream.try_borrow_mut().ok()?;
        let mut host = Native { envoy, metrics: &self.filter.metrics };
        let hook = AssertUnwindSafe(|| {
            panic_if_asked(host.envoy, name);
            hook(&mut stream, &mut host)
        });
        catch_unwind(hook).ok()
    }
}

#[cfg(feature = "panics")]
#[allow(clippy::panic, reason = "for a test")]
fn panic_if_asked(envoy: &Envoy, hook: &str) {
    use stigg_segment::host::Headers as _;
    let headers = envoy.headers(Map::RequestHeaders).ok();
    let mut asks = headers.iter().flat_map(|headers| headers.pairs());
    if asks.any(|asked| asked == (b"x-panic", hook.as_bytes())) {
        panic!("asked for in {hook}");
    }
}

#[cfg(not(feature = "panics"))]
fn panic_if_asked(_: &Envoy, _: &str) {}

/// Envoy during one hook, with its numbers for the metrics.
struct Native<'a> {
    envoy: &'a mut Envoy,
    metrics: &'a Registry<Series>,
}

impl Host for Native<'_> {
    type Headers<'a>
        = Headers<'a>
    where
        Self: 'a;

    fn request_headers(&self) -> Result<Headers<'_>, Failed> {
        self.envoy.headers(Map::RequestHeaders)
    }

    fn set_request_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), Failed> {
        self.envoy.set_header(Map::RequestHeaders, name, Some(value))
    }

    fn remove_request_header(&mut self, name: &[u8]) -> Result<(), Failed> {
        self.envoy.set_header(Map::RequestHeaders, name, None)
    }

    fn remove_request_trailers(&mut self) -> Result<(), Failed> {
        let names = self.envoy.headers(Map::RequestTrailers)?.names();
        names.iter().try_for_each(|name| self.envoy.set_header(Map::RequestTrailers, name, None))
    }

    fn request_body(&self, size: usize) -> Result<Cow<'_, [u8]>, Failed> {
        let body = self.envoy.body();
        if body.len() == size { Ok(body) } else { Err(Failed) }
    }

    fn wrap_request_body(&mut self, head: &[u8], tail: &[u8]) -> Result<(), Failed> {
        let whole = [head, &self.envoy.body(), tail].concat();
        self.envoy.replace_body(&whole)
    }

    fn replace_request_body(&mut self, body: &[u8]) -> Result<(), Failed> {
        self.envoy.replace_body(body)
    }

    fn now(&self) -> Option<Duration> {
        SystemTime::now().duration_since(UNIX_EPOCH).ok()
    }

    fn filter_state(&self, key: &str) -> Option<Vec<u8>> {
        self.envoy.filter_state(key)
    }

    fn set_property(&mut self, name: &str, value: &[u8]) {
        self.envoy.set_filter_state(&["wasm.", name].concat(), value);
    }

    fn reroutes(&self) -> bool {
        false
    }

    fn sends_on(&self) -> bool {
        false // the request is always held
    }

    fn clear_route_cache(&mut self) {
        self.envoy.clear_route_cache();
    }

    fn reply(&mut self, status: u32, headers: &[(&str, &str)], body: &[u8], details: &str) -> Result<(), Failed> {
        self.envoy.send_response(status, headers, body, details);
        Ok(())
    }

    fn count(&mut self, metric: Metric) {
        if let Some(counter) = self.metrics.id(metric) {
            self.envoy.increment(counter);
        }
    }

    fn log_warning(&mut self, message: &str) {
        abi::log(Level::Warning, message);
    }

    fn log_error(&mut self, message: &str) {
        abi::log(Level::Error, message);
    }
}
