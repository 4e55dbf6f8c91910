//! Takes a request through the module, callback by callback.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use proxy_wasm_host::abi::v0_2_1::types::Action;
use proxy_wasm_host::abi::v0_2_1::{
    CallScope, Callback, ContextId, Guest, GuestError, Host, PluginConfig, Started, VmServices,
};
use proxy_wasm_host::{Engine, HeaderMap, HeaderMapExt, Limits, Module, VecHeaderMap};

use crate::cases::{ANSWER, Call, Headers, Outcome, PATH, Request};
use crate::complaints::Complaints;
use crate::exchange::{Exchange, Message};
use crate::services::{Log, Metrics};

/// The differences between hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// A `Pause` holds the headers back until the body has come. On other hosts, nothing would continue the request.
    pub holds_headers: bool,
    /// It has metrics and stores properties.
    pub has_extras: bool,
    /// It keeps calling the module after its answer, with the rest of the request and with that answer.
    pub goes_on: bool,
}

impl Kind {
    /// All kinds.
    pub fn all() -> impl Iterator<Item = Kind> {
        (0..8).map(|bits| Kind { holds_headers: bits & 1 != 0, has_extras: bits & 2 != 0, goes_on: bits & 4 != 0 })
    }
}

/// A module, compiled once for any number of gateways.
#[derive(Debug)]
pub struct Program {
    host: Host,
    module: Module,
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    guest: Guest,
    root: ContextId,
    kind: Kind,
    complaints: Complaints,
    log: Arc<Mutex<Vec<String>>>,
    metrics: Arc<Metrics>,
}

impl Program {
    /// Compiles a module.
    pub fn new(wasm: &[u8]) -> Result<Self> {
        let engine = Engine::new()?;
        Ok(Self { host: Host::new(&engine)?, module: Module::new(&engine, wasm)? })
    }

    /// Starts a gateway with this module. If the module does not start, the error contains its log.
    pub fn start(&self, kind: Kind, configuration: &str, environment: &[(&str, &str)]) -> Result<Gateway> {
        let (complaints, log, metrics) = (Complaints::new(kind), Arc::default(), Arc::new(Metrics::new(kind)));
        let environment = environment.iter().map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into()));
        let services = VmServices::new(Arc::new(Log { complaints: complaints.clone(), lines: Arc::clone(&log) }))
            .with_environment(environment.collect())
            .with_shared(metrics.clone());
        let plugin = PluginConfig::new().with_root_id("stigg_segment").with_configuration(configuration);
        // Generous, because this is wall-clock time and the machine may be busy.
        let limits = Limits::new().with_cpu_time(Duration::from_secs(60));
        let (guest, root) = tracing::subscriber::with_default(complaints.clone(), || {
            let mut guest = Guest::new(&self.host, &self.module, services, &limits)?;
            let started = guest.start(plugin)?;
            complaints.check("at the start")?;
            match started {
                Started::Serving(root) => Ok((guest, root)),
                Started::Refused { callback, .. } => bail!("the module did not say why it rejects {callback}"),
            }
        })?;
        Ok(Gateway { guest, root, kind, complaints, log, metrics })
    }
}

impl Gateway {
    /// Takes a request through the gateway; the upstream answers it with this status.
    pub fn serve(&mut self, request: &Request, upstream_answers: u16) -> Result<Outcome> {
        let exchange = Exchange::new(self.kind, request_headers(request)?);
        let (kind, root, complaints) = (self.kind, self.root, &self.complaints);
        tracing::subscriber::with_default(complaints.clone(), || {
            let (outcome, _) = self.guest.with(exchange, |scope| {
                let stream = scope.on_context_create(Some(root))?;
                Way { scope, stream, kind, complaints }.serve(request, upstream_answers)
            });
            outcome
        })
    }

    /// The module's log.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The value of a metric; for a histogram, the number of values. `None` if the module has not defined the metric.
    pub fn metric(&self, name: &str) -> Option<u64> {
        self.metrics.value(name)
    }
}

/// One request's way.
struct Way<'a, 'b> {
    scope: &'a mut CallScope<'b, Exchange>,
    stream: ContextId,
    kind: Kind,
    complaints: &'a Complaints,
}

impl<'b> Way<'_, 'b> {
    fn serve(mut self, request: &Request, upstream_answers: u16) -> Result<Outcome> {
        self.request(request)?;
        let call = match self.exchange().reply.take() {
            None => {
                let call = sent_upstream(&self.exchange().request)?;
                self.exchange().response = message(&[(":status", upstream_answers.to_string().as_bytes())], ANSWER)?;
                self.exchange().answered = true;
                self.response()?;
                Some(call)
            }
            Some(reply) => {
                let sent = self.exchange().request.sent.as_ref();
                ensure!(sent.is_none_or(|sent| sent.body.is_empty()), "half of it was sent on before it was answered");
                let status = reply.status_code.to_string();
                let mut headers = vec![(&b":status"[..], status.as_bytes())];
                headers.extend(reply.headers.iter().map(|(name, value)| (&**name, &**value)));
                self.exchange().response = message(&headers, &reply.body)?;
                if self.kind.goes_on {
                    self.response()?;
                } else {
                    self.exchange().response.send();
                }
                None
            }
        };
        ensure!(self.callback(Callback::Done, |scope, stream| scope.on_done(stream))?, "it is not done");
        self.callback(Callback::Log, |scope, stream| scope.on_log(stream))?;
        self.callback(Callback::Delete, |scope, stream| scope.on_delete(stream))?;

        let answer = self.exchange().response.sent.take().context("no answer")?;
        let status = answer.headers.get(b":status").context("no status")?;
        let status = std::str::from_utf8(&status)?.parse()?;
        Ok(Outcome { status, headers: headers(&answer.headers), body: answer.body, call })
    }

    /// Passes the request to the module, until it is forwarded or answered.
    fn request(&mut self, request: &Request) -> Result<()> {
        let count = self.exchange().request.headers.len() as u32;
        let last = request.body.is_empty() && !request.has_trailers();
        let mut action =
            self.callback(Callback::RequestHeaders, |scope, stream| scope.on_request_headers(stream, count, last))?;
        if self.is_over(action)? {
            return Ok(());
        }
        let held = self.exchange().reply.is_none() && action == Action::Pause;
        ensure!(self.kind.holds_headers || !held, "it hangs: this host does not hold headers back");
        for (index, piece) in request.body.iter().enumerate() {
            self.exchange().request.body.extend_from_slice(piece);
            let size = self.exchange().request.body.len() as u32;
            let last = index + 1 == request.body.len() && !request.has_trailers();
            action = self.callback(Callback::RequestBody, |scope, stream| scope.on_request_body(stream, size, last))?;
            if self.is_over(action)? {
                return Ok(());
            }
        }
        if request.has_trailers() {
            self.exchange().request.trailers =
                map(request.trailers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))?;
            let count = request.trailers.len() as u32;
            action =
                self.callback(Callback::RequestTrailers, |scope, stream| scope.on_request_trailers(stream, count))?;
            self.is_over(action)?;
        }
        ensure!(self.exchange().reply.is_some() || action == Action::Continue, "it hangs: nothing more will come");
        Ok(())
    }

    /// Follows the module's action. Returns whether the rest of the request is no longer needed.
    fn is_over(&mut self, action: Action) -> Result<bool> {
        let goes_on = self.kind.goes_on;
        let exchange = self.exchange();
        exchange.request.paused = action == Action::Pause;
        if exchange.reply.is_some() {
            ensure!(action == Action::Pause, "it was answered, and is to be sent on nevertheless");
            return Ok(!goes_on);
        }
        if action == Action::Continue {
            exchange.request.send();
        }
        Ok(false)
    }

    /// Passes the answer to the module.
    fn response(&mut self) -> Result<()> {
        let response = &self.exchange().response;
        let (count, size) = (response.headers.len() as u32, response.body.len() as u32);
        let last = size == 0;
        let action =
            self.callback(Callback::ResponseHeaders, |scope, stream| scope.on_response_headers(stream, count, last))?;
        ensure!(action == Action::Continue, "the answer hangs");
        if size > 0 {
            let body = std::mem::take(&mut self.exchange().response.body);
            self.exchange().response.send();
            self.exchange().response.body = body;
            let action =
                self.callback(Callback::ResponseBody, |scope, stream| scope.on_response_body(stream, size, true))?;
            ensure!(action == Action::Continue, "the answer hangs");
        }
        self.exchange().response.send();
        Ok(())
    }

    fn callback<R>(
        &mut self,
        callback: Callback,
        call: impl FnOnce(&mut CallScope<'b, Exchange>, ContextId) -> Result<R, GuestError>,
    ) -> Result<R> {
        let result = call(self.scope, self.stream);
        self.complaints.check(callback.export_name())?;
        result.with_context(|| callback.export_name())
    }

    fn exchange(&mut self) -> &mut Exchange {
        self.scope.stream_mut()
    }
}

/// The request as the module first sees it, with the headers that a gateway adds.
fn request_headers(request: &Request) -> Result<VecHeaderMap> {
    let added = [
        (":authority", "edge"),
        (":path", PATH),
        (":method", request.method),
        (":scheme", "https"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "7d0a3d3c-6d63-4f57-b7a0-0b9a3c1e9d5f"),
    ];
    let added = added.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    map(added.chain(request.headers.iter().map(|(name, value)| (name.as_bytes(), &**value))))
}

/// The request that went upstream. It must be valid for any other HTTP implementation.
fn sent_upstream(request: &Message) -> Result<Call> {
    let sent = request.sent.as_ref().context("nothing was sent on")?;
    let pairs = sent.headers.pairs();
    let pseudo = pairs.iter().take_while(|(name, _)| name.starts_with(b":")).count();
    ensure!(pairs.iter().skip(pseudo).all(|(name, _)| !name.starts_with(b":")), "a pseudo header after another header");
    for name in [":authority", ":method", ":path", ":scheme"] {
        ensure!(sent.headers.get_all(name.as_bytes()).len() == 1, "not one {name}: {pairs:?}");
    }
    for length in sent.headers.get_all(b"content-length") {
        let (length, size) = (String::from_utf8_lossy(&length), sent.body.len());
        ensure!(length == size.to_string(), "content-length {length} for {size} bytes");
    }
    ensure!(sent.headers.get(b"transfer-encoding").is_none(), "framing is the host's concern");
    // The route matches on this header and removes it.
    let mut sent_headers = headers(&sent.headers);
    sent_headers.retain(|(name, _)| name != "stigg_segment_filter");
    Ok(Call { headers: sent_headers, body: sent.body.clone(), trailers: sent.trailers.len() })
}

fn message<N: AsRef<[u8]>, V: AsRef<[u8]>>(headers: &[(N, V)], body: impl AsRef<[u8]>) -> Result<Message> {
    let headers = map(headers.iter().map(|(name, value)| (name.as_ref(), value.as_ref())))?;
    Ok(Message { headers, body: body.as_ref().to_vec(), ..Message::default() })
}

fn map<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<VecHeaderMap> {
    let mut map = VecHeaderMap::default();
    map.replace_all(&pairs.collect::<Vec<_>>())?;
    Ok(map)
}

fn headers(map: &VecHeaderMap) -> Headers {
    let pairs = map.pairs().into_iter();
    pairs.map(|(name, value)| (String::from_utf8_lossy(&name).into_owned(), value)).collect()
}
