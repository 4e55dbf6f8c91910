//! The proxy-wasm shell: it maps the host's callbacks to a [`Stream`], and the stream's questions to the [`abi`].

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use log::{error, info, warn};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{self, BufferType, ContextType, MapType, MetricType};

use crate::abi;
use crate::config::{Config, Shell};
use crate::header_map::HeaderMap;
use crate::host::{Failed, Host};
use crate::metrics::{Metric, Registry};
use crate::stream::{Action, Stream};

#[allow(missing_docs, reason = "the SDK's macro writes the function that the host calls first")]
mod entry {
    proxy_wasm::main! {{
        proxy_wasm::set_log_level(proxy_wasm::types::LogLevel::Info);
        proxy_wasm::set_root_context(|_| Box::new(super::Root::default()));
    }}
}

#[derive(Default)]
struct Root {
    config: Option<Arc<Config>>,
    metrics: Rc<Registry<u32>>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let text = abi::get_buffer(BufferType::PluginConfiguration, size).ok();
        match Config::load(Shell::Wasm, size, text.as_deref(), |name| std::env::var(name)) {
            Ok(config) => {
                for note in &config.notes {
                    info!("{note}");
                }
                for warning in &config.warnings {
                    warn!("{warning}");
                }
                self.config = Some(Arc::new(config));
                self.metrics = Rc::new(Registry::new(define));
                true
            }
            Err(error) => {
                error!("{error}");
                false
            }
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request { stream: Stream::new(self.config.clone()), host: ProxyWasm(self.metrics.clone()) }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

fn define(metric: Metric) -> Option<u32> {
    abi::define_metric(MetricType::Counter, &metric.name()).ok()
}

struct Request {
    stream: Stream,
    host: ProxyWasm,
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> types::Action {
        self.stream.on_request_headers(&mut self.host, end_of_stream).into()
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> types::Action {
        self.stream.on_request_body(&mut self.host, size, end_of_stream).into()
    }

    fn on_http_request_trailers(&mut self, _: usize) -> types::Action {
        self.stream.on_request_trailers(&mut self.host).into()
    }
}

/// The host deletes a request's context when the request has ended.
impl Drop for Request {
    fn drop(&mut self) {
        if let Some(warning) = self.stream.on_end() {
            warn!("{warning}");
        }
    }
}

impl From<Action> for types::Action {
    fn from(action: Action) -> Self {
        match action {
            Action::Continue => types::Action::Continue,
            Action::Pause => types::Action::Pause,
        }
    }
}

/// The host, with its numbers for the metrics.
struct ProxyWasm(Rc<Registry<u32>>);

impl Host for ProxyWasm {
    type Headers<'a> = HeaderMap;

    fn request_headers(&self) -> Result<HeaderMap, Failed> {
        abi::get_map(MapType::HttpRequestHeaders).map(HeaderMap)
    }

    fn set_request_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), Failed> {
        abi::set_value(MapType::HttpRequestHeaders, name, value)
    }

    fn remove_request_header(&mut self, name: &[u8]) -> Result<(), Failed> {
        abi::remove_value(MapType::HttpRequestHeaders, name)
    }

    fn remove_request_trailers(&mut self) -> Result<(), Failed> {
        abi::set_map(MapType::HttpRequestTrailers, &HeaderMap::from_iter([]).0)
    }

    fn request_body(&self, size: usize) -> Result<Cow<'_, [u8]>, Failed> {
        abi::get_buffer(BufferType::HttpRequestBody, size).map(Cow::Owned)
    }

    fn wrap_request_body(&mut self, head: &[u8], tail: &[u8]) -> Result<(), Failed> {
        abi::set_buffer(BufferType::HttpRequestBody, 0, 0, head)?;
        abi::set_buffer(BufferType::HttpRequestBody, usize::MAX, 0, tail)
    }

    fn replace_request_body(&mut self, body: &[u8]) -> Result<(), Failed> {
        abi::set_buffer(BufferType::HttpRequestBody, 0, usize::MAX, body)
    }

    fn now(&self) -> Option<Duration> {
        abi::get_current_time().ok().map(Duration::from_nanos)
    }

    fn filter_state(&self, key: &str) -> Option<Vec<u8>> {
        abi::get_property(&["filter_state", key]).ok()
    }

    fn set_property(&mut self, name: &str, value: &[u8]) {
        // A host without properties does no harm.
        let _ = abi::set_property(name, value);
    }

    fn reroutes(&self) -> bool {
        true
    }

    fn sends_on(&self) -> bool {
        // Envoy counts its attempts to send a request: https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes
        let attempts = abi::get_property(&["upstream", "request_attempt_count"]);
        attempts.is_ok_and(|count| count.iter().any(|byte| *byte != 0))
    }

    fn clear_route_cache(&mut self) {
        // Envoy has this function. A host without it has no route that waits for the mark.
        let _ = abi::call_foreign_function("clear_route_cache");
    }

    fn reply(&mut self, status: u32, headers: &[(&str, &str)], body: &[u8], details: &str) -> Result<(), Failed> {
        let headers: HeaderMap = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        abi::send_local_response(status, details, body, &headers.0)
    }

    fn count(&mut self, metric: Metric) {
        if let Some(counter) = self.0.id(metric) {
            // A host that does not count does no harm.
            let _ = abi::increment_metric(*counter, 1);
        }
    }

    fn log_warning(&mut self, message: &str) {
        warn!("{message}");
    }

    fn log_error(&mut self, message: &str) {
        error!("{message}");
    }
}
