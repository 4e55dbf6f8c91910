//! Sends one request on a new connection.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// Sends the request over the protocol of its version and reads the whole response.
pub(crate) async fn send<B>(addr: SocketAddr, request: Request<B>) -> Result<Response<Bytes>>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let (_connection, response) = open(addr, request).await?;
    let (head, body) = response.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

/// Sends the request and reads the head of the response. The caller must keep the connection while it reads the body.
pub(crate) async fn open<B>(addr: SocketAddr, request: Request<B>) -> Result<(Connection, Response<Incoming>)>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect(addr).await.with_context(|| format!("cannot connect to {addr}"))?;
    stream.set_nodelay(true)?;
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
