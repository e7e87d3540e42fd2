//! Watches of an API server in memory whose streams are older than its lists.

use std::convert::Infallible;

use http::{Request, Response};
use kube::{client::Body, core::Status};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::util::service_fn;

use super::*;

#[derive(Debug)]
enum Told {
    Seen(Seen),
    Fresh,
}

impl From<Seen> for Told {
    fn from(seen: Seen) -> Self {
        Self::Seen(seen)
    }
}

impl From<Fresh> for Told {
    fn from(_: Fresh) -> Self {
        Self::Fresh
    }
}

fn pod(name: &str, version: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "ns", "resourceVersion": version }, "spec": {} })
}

/// Streams the pods of its cache, lists those of etcd; of other kinds there are none.
async fn answer(cache: Vec<Value>, etcd: Vec<Value>, request: Request<Body>) -> Result<Response<Body>, Infallible> {
    let query = request.uri().query().unwrap_or_default();
    let only = |all: Vec<Value>| if request.uri().path().ends_with("/pods") { all } else { Vec::new() };
    let text = if query.contains("sendInitialEvents=true") {
        // The type comes first, as API servers write it.
        let line = |kind: &str, object: &Value| format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n");
        let added = only(cache).into_iter().map(|object| line("ADDED", &object));
        let end = json!({ "resourceVersion": "5", "annotations": { "k8s.io/initial-events-end": "true" } });
        let end = line("BOOKMARK", &json!({ "apiVersion": "v1", "kind": "Any", "metadata": end }));
        added.chain([end]).collect()
    } else if query.contains("watch=true") {
        std::future::pending().await
    } else {
        json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "9" }, "items": only(etcd) }).to_string()
    };
    Ok(Response::new(Body::from(text.into_bytes())))
}

fn started(cache: &[Value], etcd: &[Value]) -> (Watches, mpsc::Receiver<Told>) {
    let (cache, etcd) = (cache.to_vec(), etcd.to_vec());
    let client = Client::new(service_fn(move |request| answer(cache.clone(), etcd.clone(), request)), "default");
    let (sender, inbox) = mpsc::channel(64);
    (Watches::start(&client, &sender), inbox)
}

/// What is told of pods until everything was, and whether that was all for now or all of now.
async fn told(inbox: &mut mpsc::Receiver<Told>) -> (Vec<(String, bool)>, bool) {
    let mut pods = Vec::new();
    loop {
        match inbox.recv().await.unwrap() {
            Told::Seen(Seen::Pod(name, object)) => pods.push((name, object.is_some())),
            Told::Seen(Seen::Complete) => return (pods, false),
            Told::Fresh => return (pods, true),
            Told::Seen(other) => panic!("{other:?}"),
        }
    }
}

fn pods(all: &[(&str, bool)]) -> Vec<(String, bool)> {
    all.iter().map(|(name, here)| (format!("ns/{name}"), *here)).collect()
}

#[tokio::test]
async fn who_begins_to_lead_sees_all_that_was_there_then() {
    let (watches, mut inbox) =
        started(&[pod("same", "1"), pod("gone", "2"), pod("old", "3")], &[pod("same", "1"), pod("old", "7"), pod("new", "8")]);
    assert_eq!(told(&mut inbox).await, (pods(&[("same", true), ("gone", true), ("old", true)]), false));
    assert_eq!(watches.health().check(), Ok(()));
    watches.anew();
    assert_eq!(told(&mut inbox).await, (pods(&[("old", true), ("new", true), ("gone", false)]), true));
    watches.anew();
    tokio::task::yield_now().await;
    assert!(inbox.try_recv().is_err(), "once is enough");
}

#[tokio::test]
async fn who_leads_from_the_start_lists_once() {
    let (watches, mut inbox) = started(&[pod("gone", "2")], &[pod("new", "8")]);
    watches.anew();
    assert_eq!(told(&mut inbox).await, (pods(&[("new", true)]), false));
    assert_eq!(told(&mut inbox).await, (Vec::new(), true));
}

#[tokio::test]
async fn a_watch_that_ends_is_noticed() {
    let (mut watches, inbox) = started(&[pod("one", "2")], &[]);
    drop(inbox);
    assert_eq!(watches.ended().await, "a watch ended");
    let (mut watches, _inbox) = started(&[], &[]);
    watches.tasks.spawn(async { panic!("by a bug") });
    assert!(watches.ended().await.contains("by a bug"));
}

#[test]
fn a_watch_is_broken_until_something_comes_of_it_or_nothing_fails_for_long() {
    let health = Health::default();
    health.fails("Pod", "no route".into());
    let now = Instant::now();
    assert_eq!(health.check_at(now), Err("the watch of Pod is broken: no route".into()));
    assert_eq!(health.check_at(now + CURED), Ok(()));
    health.works("Node");
    assert!(health.check_at(now).is_err());
    health.works("Pod");
    assert_eq!(health.check_at(now), Ok(()));
}

#[test]
fn only_a_refusal_of_the_question_itself_means_that_lists_are_not_streamed() {
    let refused = |code: u16| watcher::Error::WatchStartFailed(kube::Error::Api(Status::failure("no", "because").with_code(code).boxed()));
    assert!(streams_no_lists(&refused(422)) && streams_no_lists(&refused(400)));
    assert!([403, 404, 410, 429, 500, 503].into_iter().all(|code| !streams_no_lists(&refused(code))));
    assert!(!streams_no_lists(&watcher::Error::NoResourceVersion));
}
