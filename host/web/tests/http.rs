//! The answers, over a real socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use partita_web::{Source, serve};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

#[derive(Default)]
struct Scheduler {
    stuck: AtomicBool,
    ready: AtomicBool,
}

impl Source for Scheduler {
    fn metrics(&self) -> String {
        "# TYPE partita_binds counter\npartita_binds_total 3\n# EOF\n".into()
    }

    fn live(&self) -> Result<(), String> {
        if self.stuck.load(Ordering::Relaxed) { Err("the loop has not turned for 70 s".into()) } else { Ok(()) }
    }

    fn ready(&self) -> Result<(), String> {
        if self.ready.load(Ordering::Relaxed) { Ok(()) } else { Err("the list of nodes is not complete".into()) }
    }

    fn explain(&self, namespace: &str, pod: &str) -> Option<Value> {
        (namespace == "team" && pod == "train").then(|| json!({ "waits": "0/3 nodes fit" }))
    }
}

async fn ask(address: std::net::SocketAddr, method: Method, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "test").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn it_says_how_the_scheduler_is() {
    let scheduler = Arc::new(Scheduler::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(serve(listener, scheduler.clone(), stopped));
    let get = |path: &'static str| ask(address, Method::GET, path);

    assert_eq!(get("/livez").await, (200, "ok\n".into()));
    assert_eq!(get("/readyz").await, (503, "the list of nodes is not complete\n".into()));
    scheduler.ready.store(true, Ordering::Relaxed);
    scheduler.stuck.store(true, Ordering::Relaxed);
    assert_eq!(get("/readyz").await.0, 200);
    assert_eq!(get("/livez").await.0, 500);
    assert!(get("/metrics").await.1.contains("partita_binds_total 3"));

    assert_eq!(get("/explain/team/train").await, (200, r#"{"waits":"0/3 nodes fit"}"#.into()));
    assert_eq!(get("/explain/team/other").await.0, 404);
    let long = format!("/explain/team/{}", "x".repeat(300));
    assert_eq!(ask(address, Method::GET, &long).await.0, 404);
    assert_eq!(get("/elsewhere").await.0, 404);
    assert_eq!(ask(address, Method::POST, "/metrics").await.0, 405);

    stop.send(true).unwrap();
    server.await.unwrap().unwrap();
}
