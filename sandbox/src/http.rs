//! Sends one request on a new connection.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;

/// Where a server listens.
#[derive(Debug, Clone)]
pub(crate) enum Addr {
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl From<SocketAddr> for Addr {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(addr)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Sends the request over the protocol of its version and reads the whole response.
pub(crate) async fn send<B>(addr: impl Into<Addr>, request: Request<B>) -> Result<Response<Bytes>>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let (_connection, response) = open(addr, request).await?;
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

/// Sends the request and reads the head of the response. The caller must keep the connection while it reads the body.
pub(crate) async fn open<B>(addr: impl Into<Addr>, request: Request<B>) -> Result<(Connection, Response<Incoming>)>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let addr = addr.into();
    let cannot = || format!("cannot connect to {addr}");
    match &addr {
        Addr::Tcp(addr) => {
            let stream = TcpStream::connect(addr).await.with_context(cannot)?;
            stream.set_nodelay(true)?;
            exchange(stream, request).await
        }
        Addr::Unix(path) => exchange(UnixStream::connect(path).await.with_context(cannot)?, request).await,
    }
}

async fn exchange<S, B>(stream: S, request: Request<B>) -> Result<(Connection, Response<Incoming>)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let io = TokioIo::new(stream);
    Ok(match request.version() {
        Version::HTTP_11 => {
            let (mut sender, connection) = http1::handshake(io).await?;
            (Connection(tokio::spawn(connection).abort_handle()), sender.send_request(request).await?)
        }
        Version::HTTP_2 => {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            (Connection(tokio::spawn(connection).abort_handle()), sender.send_request(request).await?)
        }
        version => bail!("{version:?} is not supported"),
    })
}

/// A connection that ends when it is dropped, even half-way through a response.
#[derive(Debug)]
pub(crate) struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}
