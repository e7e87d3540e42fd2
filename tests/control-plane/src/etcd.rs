//! The little that we ask of etcd itself, over its HTTP gateway.

use kube::{Client, Config};
use serde_json::{Value, json};

use crate::error::{Doing, Error};

/// What gRPC calls a revision that is compacted already.
const OUT_OF_RANGE: u16 = 11;

/// A client of etcd. It is one of Kubernetes, which speaks HTTP and JSON as well as any.
pub(crate) struct Etcd {
    client: Client,
}

impl Etcd {
    pub(crate) fn new(port: u16) -> Result<Self, Error> {
        let url = format!("http://127.0.0.1:{port}");
        let mut config = Config::new(url.parse().map_err(std::io::Error::other).doing(|| format!("{url} is no address"))?);
        // No TLS is spoken, so the system's roots, which it may not have, need not be found.
        config.root_cert = Some(Vec::new());
        config.default_retry = false;
        Ok(Self { client: Client::try_from(config).doing(|| format!("no client for etcd at {url}"))? })
    }

    pub(crate) async fn is_healthy(&self) -> bool {
        match http::Request::get("/health").body(Vec::new()) {
            Ok(request) => self.client.request::<Value>(request).await.is_ok_and(|answer| answer["health"] == "true"),
            Err(_) => false,
        }
    }

    /// Forgets every revision but the present one, which is returned.
    pub(crate) async fn compact(&self) -> Result<i64, Error> {
        // Any key will do: every answer tells the revision. Keys are base64, numbers of 64 bits strings.
        let answer = self.post("/v3/kv/range", &json!({ "key": "AA==" })).await?;
        let revision = answer["header"]["revision"].as_str().and_then(|revision| revision.parse().ok());
        let revision: i64 = revision
            .ok_or_else(|| std::io::Error::other(format!("it answered {answer}")))
            .doing(|| "etcd did not tell its revision".to_owned())?;
        match self.post("/v3/kv/compaction", &json!({ "revision": revision.to_string(), "physical": true })).await {
            // Nothing was written since the last time.
            Err(Error::Kube { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.code == OUT_OF_RANGE) => Ok(revision),
            other => other.map(|_| revision),
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        let request = http::Request::post(path).header("content-type", "application/json").body(body.to_string().into_bytes());
        let request = request.map_err(std::io::Error::other).doing(|| format!("{path} is no path"))?;
        self.client.request(request).await.doing(|| format!("etcd refused {path}"))
    }
}
