//! The debugger: a live page with every webhook, its answer, and what the filter made of it.
//!
//! Any client that reaches it can send webhooks with the secret. So it listens on loopback only, rejects other host names
//! (a page elsewhere could resolve one to this machine), and rejects requests from other pages.

mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures_util::stream::{self, Stream, StreamExt};
use sandbox::fixtures;
use sandbox::stigg::{Reply, status_text};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::broadcast::error::RecvError;

pub use self::webhooks::Webhooks;
use super::endpoint::{Endpoint, Running};
use super::own::Own;
use super::pretty::pretty;

const PAGE: &str = include_str!("debugger/page.html");
const STYLE: &str = include_str!("debugger/page.css");
const SCRIPT: &str = include_str!("debugger/page.js");

/// Only the files served here, and no script or style inside the page: so an event cannot become one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(Debug)]
struct Debugger {
    webhooks: Arc<Webhooks>,
    about: About,
    endpoints: Vec<Endpoint>,
}

/// What runs, for people.
#[derive(Debug, Clone, Serialize)]
struct About {
    /// Where the configuration is from.
    file: String,
    /// The configuration, without secrets.
    configuration: String,
    warnings: Vec<String>,
    /// The paths that tell environments apart.
    environments: Vec<String>,
}

/// Serves the page until it is dropped.
pub async fn serve(listener: TcpListener, webhooks: Arc<Webhooks>, own: &Own, running: Running) -> Result<()> {
    let Running { endpoints, configuration } = running;
    let about = About {
        file: own.file.clone(),
        configuration: pretty(&configuration),
        warnings: own.warnings.clone(),
        environments: endpoints.iter().map(|endpoint| endpoint.path.clone()).collect(),
    };
    let addr = listener.local_addr()?;
    let routes = Router::new()
        .route("/", get(|| asset("text/html; charset=utf-8", PAGE)))
        .route("/page.css", get(|| asset("text/css; charset=utf-8", STYLE)))
        .route("/page.js", get(|| asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/about", get(async |State(debugger): State<Arc<Debugger>>| Json(debugger.about.clone())))
        .route("/events", get(events))
        .route("/events/{path}/{name}", post(send))
        .route("/webhooks", get(watch))
        .route("/webhooks/{id}", get(detail))
        .route("/webhooks/{id}/again", post(again))
        .layer(middleware::from_fn_with_state(addr, guard))
        .with_state(Arc::new(Debugger { webhooks, about, endpoints }));
    Ok(axum::serve(listener, routes).await?)
}

async fn guard(State(addr): State<SocketAddr>, request: Request, next: Next) -> Response {
    if !is_own(addr, &request) {
        return (StatusCode::FORBIDDEN, "Only for the debugger's own page.\n").into_response();
    }
    next.run(request).await
}

fn is_own(addr: SocketAddr, request: &Request) -> bool {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let names = [addr.to_string(), format!("localhost:{}", addr.port())];
    let is_name = |name: &str| names.iter().any(|own| own == name);
    is_name(header(HOST))
        && (request.method() == Method::GET || header(ORIGIN).strip_prefix("http://").is_some_and(is_name))
}

async fn asset(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, content_type), (CONTENT_SECURITY_POLICY, POLICY)], text)
}

async fn events() -> Result<Json<Vec<String>>, Failure> {
    Ok(Json(fixtures::names()?))
}

/// Sends a fixture as a new event to an environment, and shows what Stigg would show.
async fn send(
    State(debugger): State<Arc<Debugger>>,
    Path((path, name)): Path<(String, String)>,
) -> Result<Response, Failure> {
    if !fixtures::names()?.contains(&name) {
        return Ok(StatusCode::NOT_FOUND.into_response()); // for example, a path to a file
    }
    let (event, _) = fixtures::with_new_id(&fixtures::event(&name)?);
    debugger.deliver(event, &path).await
}

/// Delivers a webhook again, as Stigg does after a failure: Segment drops it if it has the first one.
async fn again(State(debugger): State<Arc<Debugger>>, Path(id): Path<String>) -> Result<Response, Failure> {
    match debugger.webhooks.event(&id) {
        Some((event, path)) => debugger.deliver(event, &path).await,
        None => Ok(StatusCode::NOT_FOUND.into_response()),
    }
}

impl Debugger {
    async fn deliver(&self, event: Vec<u8>, path: &str) -> Result<Response, Failure> {
        match self.endpoints.iter().find(|endpoint| endpoint.path == path) {
            Some(endpoint) => Ok(answered(&endpoint.send(event).await?)),
            None => Ok(StatusCode::NOT_FOUND.into_response()),
        }
    }
}

fn answered(reply: &Reply) -> Response {
    let id = reply.header("x-request-id");
    Json(json!({ "id": id, "status": reply.status, "status_text": status_text(reply.status) })).into_response()
}

async fn detail(State(debugger): State<Arc<Debugger>>, Path(id): Path<String>) -> Response {
    match debugger.webhooks.detail(&id) {
        Some(detail) => Json(detail).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// All webhooks so far, then every new or changed one.
async fn watch(State(debugger): State<Arc<Debugger>>) -> Sse<impl Stream<Item = Result<Event, axum::Error>>> {
    let (known, changed) = debugger.webhooks.watch();
    let changes = stream::unfold(changed, |mut changed| async {
        match changed.recv().await {
            Ok(summary) => Some((summary, changed)),
            // The browser reconnects, and then gets them all.
            Err(RecvError::Lagged(_) | RecvError::Closed) => None,
        }
    });
    let events = stream::iter(known).chain(changes).map(|summary| Event::default().json_data(summary));
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// The error, in words for the page.
struct Failure(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::BAD_GATEWAY, format!("{:#}", self.0)).into_response()
    }
}
