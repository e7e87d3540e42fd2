//! Who leads when: the steps by themselves, and the whole run with an API server in memory that can stand still.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response};
use kube::client::Body;
use tower::util::service_fn;

use super::*;

const LEASE: Duration = Duration::from_secs(15);

fn config(identity: &str) -> Config {
    Config { namespace: "ns".into(), name: "lease".into(), identity: identity.into(), duration: LEASE }
}

fn candidate(identity: &str) -> Candidate {
    Candidate::new(&config(identity))
}

fn lease(version: u64, spec: LeaseSpec) -> Lease {
    Lease { metadata: ObjectMeta { resource_version: Some(version.to_string()), ..ObjectMeta::default() }, spec: Some(spec) }
}

fn written(step: Step) -> LeaseSpec {
    let Step::Write(spec) = step else { panic!("it waits") };
    spec
}

/// Looks once a second in this span, and says after how many seconds it would write.
fn takes_after(candidate: &mut Candidate, lease: &Lease, start: Instant, mut seconds: std::ops::RangeInclusive<u64>) -> Option<u64> {
    seconds.find(|&second| matches!(candidate.step(Some(lease), start + Duration::from_secs(second)), Step::Write(_)))
}

#[test]
fn a_lease_is_taken_over_only_after_it_stood_still_for_its_whole_duration() {
    let start = Instant::now();
    let (mut a, mut b) = (candidate("a"), candidate("b"));
    let first = written(a.step(None, start));
    assert_eq!((first.holder_identity.as_deref(), first.lease_transitions), (Some("a"), Some(1)));
    assert_eq!(takes_after(&mut b, &lease(1, first.clone()), start, 100..=114), None, "first seen now, however old it says it is");
    let renewed = lease(2, first);
    assert_eq!(takes_after(&mut b, &renewed, start, 115..=200), Some(130));
    let taken = written(b.step(Some(&renewed), start + Duration::from_secs(130)));
    assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(2)));
    assert_eq!(a.step(Some(&lease(3, taken)), start), Step::Wait("b".into()));
}

#[test]
fn time_in_which_the_api_server_does_not_answer_does_not_count() {
    let start = Instant::now();
    let held = lease(1, written(candidate("a").step(None, start)));
    let mut b = candidate("b");
    assert_eq!(takes_after(&mut b, &held, start, 0..=10), None);
    // It stands still until second 60, and so do the leader's calls in it.
    b.missed();
    assert_eq!(takes_after(&mut b, &held, start, 60..=100), Some(65));
    // This process stands still itself: who knows what the API server did.
    let mut c = candidate("c");
    assert_eq!(takes_after(&mut c, &held, start, 0..=0), None);
    assert_eq!(takes_after(&mut c, &held, start, 60..=100), Some(71), "4.5 s of the minute count");
}

#[test]
fn the_holder_keeps_its_term_and_a_longer_lease_is_waited_for() {
    let now = Instant::now();
    let mut a = candidate("a");
    let first = written(a.step(None, now));
    let again = written(a.step(Some(&lease(1, first.clone())), now));
    assert_eq!((again.lease_transitions, again.acquire_time), (Some(1), first.acquire_time.clone()));
    let long = lease(9, LeaseSpec { lease_duration_seconds: Some(60), ..first.clone() });
    assert_eq!(takes_after(&mut candidate("b"), &long, now, 0..=100), Some(60));
    let given_up = lease(10, LeaseSpec { holder_identity: Some(String::new()), ..first });
    assert_eq!(written(candidate("c").step(Some(&given_up), now)).lease_transitions, Some(2));
}

#[test]
fn what_another_wrote_under_the_same_name_is_anothers() {
    let now = Instant::now();
    let (mut one, mut two) = (candidate("same"), candidate("same"));
    let held = lease(1, written(one.step(None, now)));
    assert_eq!(takes_after(&mut two, &held, now, 0..=100), Some(15), "it waits as anybody would");
    let taken = lease(2, written(two.step(Some(&held), now)));
    assert_eq!(one.step(Some(&taken), now), Step::Wait("same".into()));
    assert!(matches!(two.step(Some(&taken), now), Step::Write(_)));
    let (a, b) = (identity("pod").unwrap(), identity("pod").unwrap());
    assert!(a != b && a.starts_with("pod_") && a.len() == "pod_".len() + 16, "{a} {b}");
}

/// An API server that knows one lease.
#[derive(Clone)]
struct Server {
    lease: Arc<Mutex<Option<Lease>>>,
    /// While true, nothing is answered.
    still: Arc<watch::Sender<bool>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new() -> Self {
        Self { lease: Arc::default(), still: Arc::new(watch::Sender::new(false)), requests: Arc::default() }
    }

    fn client(&self) -> Client {
        let server = self.clone();
        Client::new(service_fn(move |request| server.clone().answer(request)), "default")
    }

    fn holder(&self) -> String {
        self.lease.lock().unwrap().clone().and_then(|lease| lease.spec?.holder_identity).unwrap_or_default()
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        // Nobody sees this.
        let _ = self.still.subscribe().wait_for(|still| !*still).await;
        self.requests.lock().unwrap().push(format!("{} {}", head.method, head.uri));
        let mut known = self.lease.lock().unwrap();
        let fail = |code: u16, why| (code, serde_json::to_vec(&kube::core::Status::failure("no", why).with_code(code)).unwrap());
        let (code, text) = if head.method == Method::GET {
            known.as_ref().map_or_else(|| fail(404, "NotFound"), |lease| (200, serde_json::to_vec(lease).unwrap()))
        } else {
            let mut new: Lease = serde_json::from_slice(&body).unwrap();
            let version = known.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
            if new.metadata.resource_version == version {
                let next = version.map_or(1, |version| version.parse::<u64>().unwrap() + 1);
                new.metadata.resource_version = Some(next.to_string());
                *known = Some(new.clone());
                (200, serde_json::to_vec(&new).unwrap())
            } else {
                fail(409, "Conflict")
            }
        };
        Ok(Response::builder().status(code).body(Body::from(text)).unwrap())
    }

    fn run(&self, identity: &str) -> Process {
        let fence = Fence::closed(LEASE);
        let ((sender, term), (stop, stopped)) = (watch::channel(None), watch::channel(false));
        tokio::spawn(run(self.client(), config(identity), fence.clone(), sender, stopped));
        Process { fence, term, stop }
    }
}

struct Process {
    fence: Fence,
    term: watch::Receiver<Option<i64>>,
    stop: watch::Sender<bool>,
}

impl Process {
    fn leads(&self) -> bool {
        assert!(self.fence.check().is_none() || self.term.borrow().is_some());
        self.fence.check().is_some()
    }
}

async fn pass(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_outlives_an_api_server_that_stands_still_for_a_while() {
    let server = Server::new();
    let one = server.run("one");
    pass(1_700).await;
    assert!(one.leads());
    server.still.send_replace(true);
    pass(7_500).await;
    assert!(one.leads());
    server.still.send_replace(false);
    pass(60_000).await;
    assert!(one.leads() && *one.term.borrow() == Some(1));
    server.still.send_replace(true);
    pass(10_000).await;
    assert!(!one.leads(), "two thirds are over");
    pass(3_000).await;
    assert_eq!(*one.term.borrow(), None);
}

#[tokio::test(start_paused = true)]
async fn nobody_leads_right_after_the_api_server_stood_still() {
    let server = Server::new();
    let one = server.run("one");
    pass(5_000).await;
    let two = server.run("two");
    pass(30_000).await;
    assert!(one.leads() && !two.leads());
    server.still.send_replace(true);
    pass(60_000).await;
    server.still.send_replace(false);
    pass(10_000).await;
    assert!(!one.leads() && !two.leads(), "calls of the first may be carried out now");
    pass(10_000).await;
    assert!(two.leads() && *two.term.borrow() == Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_given_up_once_all_calls_are_over() {
    let server = Server::new();
    let one = server.run("one");
    pass(1_000).await;
    let call = one.fence.pass().unwrap();
    one.stop.send_replace(true);
    pass(4_000).await;
    assert!(!one.leads() && one.fence.pass().is_none());
    assert_eq!(server.holder(), "one");
    call.answered();
    pass(100).await;
    assert_eq!((server.holder().as_str(), *one.term.borrow()), ("", None));
    let two = server.run("two");
    pass(100).await;
    assert!(two.leads());
    // A call that nobody answers keeps the lease until its end.
    let call = two.fence.pass().unwrap();
    two.stop.send_replace(true);
    pass(6_000).await;
    assert_eq!((server.holder().as_str(), *two.term.borrow()), ("two", None));
    drop(call);
}

#[tokio::test(start_paused = true)]
async fn every_request_says_how_long_it_may_take() {
    let server = Server::new();
    let one = server.run("one");
    pass(2_000).await;
    assert!(one.leads());
    let requests = server.requests.lock().unwrap();
    assert!(requests.len() >= 4 && requests.iter().all(|request| request.ends_with("timeout=3000ms")), "{requests:?}");
}
