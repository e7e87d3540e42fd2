//! Connections to the kubelet's sockets.

use std::{io, path::Path};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::error::Error;

/// A connection to the kubelet's `socket`, made here and now.
pub(crate) async fn connect(socket: &Path) -> Result<Channel, Error> {
    let down = |source| Error::Down { socket: socket.to_owned(), source };
    // Connected before gRPC begins, so that the system's own error is seen.
    let mut stream = Some(UnixStream::connect(socket).await.map_err(down)?);
    let once = tower::service_fn(move |_| {
        let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)).map(TokioIo::new);
        std::future::ready(stream)
    });
    // The name stands in a header only; servers in Go refuse a path there.
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(once).await.map_err(|error| down(io::Error::other(error)))
}
