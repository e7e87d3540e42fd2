//! The hands with an API server in memory that stands still when it is told to.

use std::{convert::Infallible, sync::Mutex};

use http::{Method, Request, Response};
use kube::client::Body;
use tokio::sync::{mpsc, watch};
use tower::util::service_fn;

use super::*;

const LEASE: Duration = Duration::from_secs(3);

#[derive(Clone)]
struct Server {
    /// While true, nothing is answered.
    still: Arc<watch::Sender<bool>>,
    /// What was asked, and what with.
    requests: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Server {
    fn new(still: bool) -> Self {
        Self { still: Arc::new(watch::Sender::new(still)), requests: Arc::default() }
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        let mut object = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap_or_else(|_| json!({ "metadata": {} }));
        self.requests.lock().unwrap().push((format!("{} {}", head.method, head.uri), object.clone()));
        // Its sender lives as long as the server.
        let _ = self.still.subscribe().wait_for(|still| !*still).await;
        if head.method != Method::GET {
            object["metadata"]["name"] = json!("named");
        }
        if head.uri.path().ends_with("/events/named") {
            object["eventTime"] = Value::Null;
        }
        Ok(Response::new(Body::from(object.to_string().into_bytes())))
    }

    fn hands(&self, fence: Fence) -> Hands {
        let server = self.clone();
        let client = Client::new(service_fn(move |request| server.clone().answer(request)), "default");
        Hands::new(&client, fence, "me", Metrics::new(&mut prometheus_client::registry::Registry::default()))
    }

    /// What was asked of paths that end so, before the query.
    fn asked(&self, end: &str) -> Vec<(String, Value)> {
        let ends = |text: &str| text.split('?').next().is_some_and(|path| path.ends_with(end));
        self.requests.lock().unwrap().iter().filter(|(text, _)| ends(text)).cloned().collect()
    }
}

fn open() -> Fence {
    let fence = Fence::closed(LEASE);
    fence.open_until(Instant::now() + Duration::from_hours(1), 1);
    fence
}

fn pod(name: &str) -> PodName {
    PodName { namespace: "ns".into(), name: name.into(), uid: format!("uid-{name}") }
}

fn says(name: &str, message: impl Into<String>, turns: bool) -> Effect {
    Effect::Explain { pod: pod(name), reason: "Unschedulable", message: message.into(), turns }
}

fn binds(name: &str) -> Effect {
    Effect::Bind { pod: pod(name), node: "a".into(), grant: None }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn of_many_words_to_a_pod_the_last_is_said() {
    let server = Server::new(true);
    let hands = server.hands(Fence::open());
    let (sender, mut inbox) = mpsc::channel::<Done>(4096);
    for number in 0..100 {
        hands.start(says("often", number.to_string(), number == 0), &sender);
        tokio::task::yield_now().await;
    }
    for number in 0..200 {
        hands.start(says(&format!("p{number}"), "full", true), &sender);
    }
    pass(1).await;
    assert_eq!(server.requests.lock().unwrap().len(), WORDS_MAX, "as many as may be under way");
    server.still.send_replace(false);
    pass(1).await;
    let said = server.asked("/pods/often/status");
    let messages: Vec<&str> = said.iter().filter_map(|(_, body)| body["status"]["conditions"][0]["message"].as_str()).collect();
    assert_eq!(messages, ["0", "99"]);
    let time = |row: usize| said[row].1["status"]["conditions"][0].get("lastTransitionTime").is_some();
    assert_eq!((time(0), time(1)), (true, false), "it turned once");
    assert_eq!(std::iter::from_fn(|| inbox.try_recv().ok()).filter(|done| *done.outcome() == Outcome::Done).count(), 202);
    // One event, in which the other is counted.
    let events = server
        .requests
        .lock()
        .unwrap()
        .iter()
        .filter(|(text, body)| text.contains("/events") && (body["regarding"]["name"] == "often" || !body["series"].is_null()))
        .cloned()
        .collect::<Vec<_>>();
    assert_eq!((events.len(), &events[1].1["series"]["count"]), (2, &json!(2)), "{events:?}");
    assert!(events[0].0.starts_with("POST") && events[1].0.starts_with("PATCH"));
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_with_a_third_of_the_lease() {
    let server = Server::new(true);
    let fence = open();
    let hands = server.hands(fence.clone());
    let (sender, mut inbox) = mpsc::channel::<Done>(8);
    hands.start(Effect::Nominate { pod: pod("p"), node: String::new() }, &sender);
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    assert_eq!(server.asked("/status").len(), 1);
    fence.close();
    let Some(Done::Told { outcome, .. }) = inbox.recv().await else { panic!("something else was done") };
    assert_eq!(outcome, Outcome::Fenced, "the second try");
    let (text, body) = server.asked("/status").remove(0);
    assert!(text.ends_with("timeout=1000ms"), "{text}");
    assert_eq!(body["status"], json!({ "nominatedNodeName": null }), "it is taken back");
    assert!(!fence.drained(LEASE).await, "the first may still be carried out");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_begun_in_time_is_not_begun() {
    let server = Server::new(true);
    let hands = server.hands(Fence::open());
    let (sender, mut inbox) = mpsc::channel::<Done>(4096);
    for number in 0..600 {
        hands.start(binds(&format!("p{number}")), &sender);
    }
    pass(1).await;
    assert_eq!(server.asked("/binding").len(), CALLS_MAX);
    pass(200).await;
    let ended: Vec<Done> = std::iter::from_fn(|| inbox.try_recv().ok()).collect();
    let late = ended.iter().filter(|done| matches!(done.outcome(), Outcome::Conflict(why) if why.starts_with("it was not begun"))).count();
    assert_eq!((ended.len(), late), (600, 600 - 2 * CALLS_MAX));
    let asked: std::collections::BTreeSet<String> = server.asked("/binding").into_iter().map(|(text, _)| text).collect();
    assert_eq!(asked.len(), 2 * CALLS_MAX);
}
