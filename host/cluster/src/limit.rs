//! Calls that end at the server too.

use std::time::Duration;

use futures::TryFutureExt;
use http::Request;
use kube::{Client, client::Body};
use tower::util::service_fn;

/// A client whose requests say how long they may take (`?timeout=`, the API server's `WithRequestDeadline`), so that a request that nobody
/// here waits for any longer is not carried out later either.
pub(crate) fn limited(client: &Client, limit: Duration) -> Client {
    let (client, limit) = (client.clone(), format!("timeout={}ms", limit.as_millis()));
    let namespace = client.default_namespace().to_owned();
    let service = service_fn(move |mut request: Request<Body>| {
        let uri = request.uri();
        let joint = if uri.query().is_some_and(|query| !query.is_empty()) { "&" } else { "?" };
        // One that is too long to be parsed goes without.
        if let Ok(uri) = format!("{}{joint}{limit}", uri.to_string().trim_end_matches('?')).parse() {
            *request.uri_mut() = uri;
        }
        let client = client.clone();
        async move { client.send(request).map_err(Box::new).await }
    });
    Client::new(service, namespace)
}
