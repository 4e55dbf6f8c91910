//! The stand-in's connections: from the TCP handshake to the answer, or to the reset.

use std::future::pending;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::ledger::Pending;
use super::{Behaviour, Call, Shared, api};

/// Accepts connections until it is aborted; that also ends them.
pub(super) async fn run(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // If a connection closes before it is accepted, that is the client's business.
                let Ok((stream, _)) = accepted else { continue };
                shared.ledger.connection_taken();
                connections.spawn(serve(stream, tls.clone(), Arc::clone(&shared)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// How TLS begins: <https://www.rfc-editor.org/rfc/rfc8446#section-5.1>.
const HANDSHAKE: [u8; 1] = [22];

/// Serves one connection. Errors are ignored here: the client sees them, and so do the tests.
async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let Ok(socket) = stream.as_fd().try_clone_to_owned() else { return };
    let _ = stream.set_nodelay(true);
    match tls {
        None => serve_http(stream, socket, None, shared).await,
        Some(tls) => {
            let mut first = [0];
            if stream.peek(&mut first).await.is_ok_and(|bytes| bytes > 0) && first != HANDSHAKE {
                shared.ledger.connection_is_unencrypted();
            }
            let Ok(stream) = tls.accept(stream).await else { return };
            let sni = stream.get_ref().1.server_name().map(str::to_owned);
            serve_http(stream, socket, sni, shared).await;
        }
    }
}

async fn serve_http<S>(stream: S, socket: OwnedFd, sni: Option<String>, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = Arc::new(Connection { sni, reset: Notify::new(), shared });
    let requests = {
        let connection = Arc::clone(&connection);
        service_fn(move |request| Arc::clone(&connection).answer(request))
    };
    let http = auto::Builder::new(TokioExecutor::new());
    tokio::select! {
        _ = http.serve_connection(TokioIo::new(stream), requests) => {}
        () = connection.reset.notified() => {
            // With no time to linger, closing the socket sends RST instead of FIN.
            let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
    }
}

struct Connection {
    sni: Option<String>,
    reset: Notify,
    shared: Arc<Shared>,
}

impl Connection {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let Shared { ledger, plan } = &*self.shared;
        ledger.request_begun();
        let mut call = ledger.arrival(self.read(request).await?);

        let mut behaviour = plan.next(&call);
        let (status, headers, body) = loop {
            match behaviour {
                Behaviour::Accept => {
                    let json = ("content-type".to_owned(), "application/json".to_owned());
                    let (status, body) = match api::check(&call) {
                        Ok(()) => (200, r#"{"success":true}"#.to_owned()),
                        Err(rejection) => (rejection.status, rejection.body()),
                    };
                    call.accepted = status == 200;
                    break (status, vec![json], body);
                }
                Behaviour::Answer { status, headers, body, accept } => {
                    call.accepted = accept;
                    break (status, headers, body);
                }
                Behaviour::Delay(delay, then) => {
                    tokio::time::sleep(delay).await;
                    behaviour = *then;
                }
                Behaviour::ResetBeforeAccept => return self.reset(call).await,
                Behaviour::ResetAfterAccept => {
                    call.accepted = true;
                    return self.reset(call).await;
                }
            }
        };
        let response = response(status, headers, body)?;
        call.status = Some(status);
        Ok(response)
    }

    async fn read(&self, request: Request<Incoming>) -> Result<Call> {
        let (head, body) = request.into_parts();
        let host = match head.uri.authority() {
            Some(authority) => Some(authority.to_string()),
            None => head.headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned),
        };
        let body = body.collect().await?;
        Ok(Call {
            trailers: body.trailers().cloned().unwrap_or_default(),
            body: body.to_bytes(),
            arrived: SystemTime::now(),
            path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            method: head.method,
            host,
            sni: self.sni.clone(),
            version: head.version,
            write_key: api::write_key(&head.headers),
            headers: head.headers,
            status: None,
            accepted: false,
        })
    }

    /// Resets the request's connection; never returns.
    async fn reset(&self, call: Pending<'_>) -> Result<Response<Full<Bytes>>> {
        drop(call); // recorded first, so that a client that sees the reset finds the call
        self.reset.notify_one();
        pending().await
    }
}

fn response(status: u16, headers: Vec<(String, String)>, body: String) -> Result<Response<Full<Bytes>>> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(body))?)
}
