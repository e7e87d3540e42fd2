//! What a program does goes to an OpenTelemetry collector, by its own protocol.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    process::Command,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<String>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans).map(|span| span.name));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_a_collector() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let collector = Collector::default();
    let server = Server::builder().add_service(TraceServiceServer::new(collector.clone()));
    let serving = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let run = tokio::task::spawn_blocking(move || {
        let arguments = ["--otlp", &address, "agent", "inspect", "--simulated", "A30"];
        Command::new(env!("CARGO_BIN_EXE_partita")).args(arguments).output().unwrap()
    });
    let output = run.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(*collector.0.lock().unwrap(), ["inspect"]);
    serving.abort();
}

#[test]
fn a_collector_that_is_none_is_refused_or_does_not_matter() {
    let run = |url: &str| {
        let arguments = ["--otlp", url, "agent", "inspect", "--simulated", "A30"];
        Command::new(env!("CARGO_BIN_EXE_partita")).args(arguments).output().unwrap()
    };
    let wrong = run("not a url");
    assert!(!wrong.status.success());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("name a collector like"), "{}", String::from_utf8_lossy(&wrong.stderr));
    // Nobody listens there: the work is done all the same.
    assert!(run("http://127.0.0.1:1").status.success());
}
