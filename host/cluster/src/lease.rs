//! Who leads: a Lease, and a fence around every write.
//!
//! A candidate that sees the lease unchanged for its whole duration, by its own monotonic clock, takes it over with a `replace` that names the
//! version it saw, so of two only one succeeds. The leader renews every third of the duration, and its [`Fence`] closes two thirds after the
//! last renewal that it knows to have succeeded: before anybody else can have taken over. Clocks of two machines are never compared.
//!
//! The *term* is the lease's count of transitions: it grows with every new holder, travels in every layout that is written, and the API
//! server refuses one that is lower than what stands there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::watch;

/// Which lease, and for how long.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace of the lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who this is: unique among all candidates.
    pub identity: String,
    /// How long the lease lasts after a renewal.
    pub duration: Duration,
}

/// Lets writes through while this process leads for certain.
#[derive(Clone, Debug)]
pub struct Fence(Arc<State>);

#[derive(Debug)]
struct State {
    started: Instant,
    /// Until when writes are let through, milliseconds after the start; 0 while closed.
    open_until: AtomicU64,
    term: AtomicI64,
}

impl Fence {
    /// A closed fence.
    #[must_use]
    pub fn closed() -> Self {
        Self(Arc::new(State { started: Instant::now(), open_until: AtomicU64::new(0), term: AtomicI64::new(0) }))
    }

    /// A fence for one who has no rival and writes nothing: never closed.
    #[must_use]
    pub fn open() -> Self {
        let fence = Self::closed();
        fence.0.open_until.store(u64::MAX, Ordering::Release);
        fence
    }

    /// The term in which writes are let through; none while they are not.
    #[must_use]
    pub fn check(&self) -> Option<i64> {
        let now = self.0.started.elapsed().as_millis() as u64;
        (now < self.0.open_until.load(Ordering::Acquire)).then(|| self.0.term.load(Ordering::Acquire))
    }

    fn open_until(&self, at: Instant, term: i64) {
        self.0.term.store(term, Ordering::Release);
        self.0.open_until.store(at.saturating_duration_since(self.0.started).as_millis() as u64, Ordering::Release);
    }

    fn close(&self) {
        self.0.open_until.store(0, Ordering::Release);
    }
}

/// What a candidate does next. Pure: what it saw and when comes in, what to do comes out.
#[derive(Debug)]
struct Candidate {
    identity: String,
    duration: Duration,
    /// The version last seen of another's lease, and when it was first seen.
    seen: Option<(String, Instant)>,
}

/// What to do about a lease.
#[derive(Debug, PartialEq)]
enum Step {
    /// Somebody else has it.
    Wait,
    /// Write this, as the next version of what was seen.
    Write(LeaseSpec),
}

impl Candidate {
    fn step(&mut self, lease: Option<&Lease>, now: Instant) -> Step {
        let spec = lease.and_then(|lease| lease.spec.as_ref());
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let transitions = spec.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        if holder == self.identity {
            return Step::Write(self.held(transitions, spec.and_then(|spec| spec.acquire_time.clone())));
        }
        if !holder.is_empty() {
            let version = lease.and_then(|lease| lease.metadata.resource_version.clone()).unwrap_or_default();
            let since = match &self.seen {
                Some((known, since)) if *known == version => *since,
                _ => {
                    self.seen = Some((version, now));
                    now
                }
            };
            // The holder's duration may be longer than ours.
            let theirs = spec
                .and_then(|spec| spec.lease_duration_seconds)
                .map_or(self.duration, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
            if now.duration_since(since) < theirs.max(self.duration) {
                return Step::Wait;
            }
        }
        Step::Write(self.held(transitions.saturating_add(1), None))
    }

    fn held(&self, transitions: i32, since: Option<MicroTime>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.duration.as_secs().max(1) as i32),
            acquire_time: Some(since.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// Runs for the lease, renews it while it has it, and returns when it lost it; `term` says in which term it leads.
///
/// `stop` gives the lease up, so that another need not wait.
pub async fn run(client: Client, config: Config, fence: Fence, term: watch::Sender<Option<i64>>, mut stop: watch::Receiver<bool>) {
    let leases: Api<Lease> = Api::namespaced(client, &config.namespace);
    let mut candidate = Candidate { identity: config.identity.clone(), duration: config.duration, seen: None };
    let (mut leads, mut until) = (false, Instant::now());
    loop {
        let asked = Instant::now();
        let known = tokio::time::timeout(config.duration / 3, turn(&leases, &config, &mut candidate)).await;
        match known {
            Ok(Ok(Some(now_term))) => {
                // Reckoned from before the request: that is when the API server can first have written it.
                until = asked + config.duration * 2 / 3;
                fence.open_until(until, now_term);
                if !leads {
                    tracing::info!(identity = config.identity, term = now_term, "leads");
                    leads = true;
                    term.send_replace(Some(now_term));
                }
            }
            Ok(Ok(None)) if leads => break,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::warn!("the lease {}/{} could not be read or written: {error}", config.namespace, config.name),
            Err(_) => tracing::warn!("the lease {}/{}: no answer in time", config.namespace, config.name),
        }
        if leads && Instant::now() >= until {
            break;
        }
        let pause = if leads { config.duration / 3 } else { (config.duration / 6).min(Duration::from_secs(2)) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = async { drop(stop.wait_for(|stop| *stop).await) } => {
                fence.close();
                if leads {
                    give_up(&leases, &config).await;
                }
                break;
            }
        }
    }
    fence.close();
    term.send_replace(None);
}

/// One look at the lease: the term in which it is held now, or none if somebody else holds it.
async fn turn(leases: &Api<Lease>, config: &Config, candidate: &mut Candidate) -> Result<Option<i64>, kube::Error> {
    let lease = leases.get_opt(&config.name).await?;
    let Step::Write(spec) = candidate.step(lease.as_ref(), Instant::now()) else { return Ok(None) };
    let held = i64::from(spec.lease_transitions.unwrap_or(0));
    let written = if let Some(mut lease) = lease {
        lease.spec = Some(spec);
        leases.replace(&config.name, &PostParams::default(), &lease).await
    } else {
        let metadata = ObjectMeta { name: Some(config.name.clone()), ..ObjectMeta::default() };
        leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await
    };
    match written {
        Ok(_) => Ok(Some(held)),
        // Somebody else was faster.
        Err(kube::Error::Api(error)) if error.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

/// Leaves the lease without a holder, if it is still ours.
async fn give_up(leases: &Api<Lease>, config: &Config) {
    let given = async {
        let Some(mut lease) = leases.get_opt(&config.name).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&config.identity) {
            spec.holder_identity = Some(String::new());
            leases.replace(&config.name, &PostParams::default(), &lease).await?;
        }
        Ok::<(), kube::Error>(())
    };
    match tokio::time::timeout(config.duration / 3, given).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("the lease could not be given up, the next leader waits for its end: {error}"),
        Err(_) => tracing::warn!("the lease could not be given up in time, the next leader waits for its end"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(identity: &str) -> Candidate {
        Candidate { identity: identity.into(), duration: Duration::from_secs(15), seen: None }
    }

    fn lease(version: &str, spec: LeaseSpec) -> Lease {
        Lease { metadata: ObjectMeta { resource_version: Some(version.into()), ..ObjectMeta::default() }, spec: Some(spec) }
    }

    fn written(step: Step) -> LeaseSpec {
        let Step::Write(spec) = step else { panic!("it waits") };
        spec
    }

    #[test]
    fn a_lease_is_taken_over_only_after_it_stood_still_for_its_whole_duration() {
        let start = Instant::now();
        let (mut a, mut b) = (candidate("a"), candidate("b"));
        let first = written(a.step(None, start));
        assert_eq!((first.holder_identity.as_deref(), first.lease_transitions), (Some("a"), Some(1)));
        let held = lease("1", first.clone());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(b.step(Some(&held), at(100)), Step::Wait, "first seen now, however old it says it is");
        assert_eq!(b.step(Some(&held), at(114)), Step::Wait);
        let renewed = lease("2", first);
        assert_eq!(b.step(Some(&renewed), at(115)), Step::Wait, "it was renewed");
        assert_eq!(b.step(Some(&renewed), at(129)), Step::Wait);
        let taken = written(b.step(Some(&renewed), at(130)));
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(2)));
        assert_eq!(a.step(Some(&lease("3", taken)), at(131)), Step::Wait);
    }

    #[test]
    fn the_holder_keeps_its_term_and_a_longer_lease_is_waited_for() {
        let now = Instant::now();
        let mut a = candidate("a");
        let first = written(a.step(None, now));
        let again = written(a.step(Some(&lease("1", first.clone())), now));
        assert_eq!((again.lease_transitions, again.acquire_time), (Some(1), first.acquire_time.clone()));
        let long = lease("9", LeaseSpec { lease_duration_seconds: Some(60), ..first.clone() });
        let mut b = candidate("b");
        assert_eq!(b.step(Some(&long), now), Step::Wait);
        assert_eq!(b.step(Some(&long), now + Duration::from_secs(59)), Step::Wait);
        assert!(matches!(b.step(Some(&long), now + Duration::from_mins(1)), Step::Write(_)));
        let given_up = lease("10", LeaseSpec { holder_identity: Some(String::new()), ..first });
        assert_eq!(written(candidate("c").step(Some(&given_up), now)).lease_transitions, Some(2));
    }

    #[test]
    fn a_fence_closes_by_itself() {
        let fence = Fence::closed();
        assert_eq!(fence.check(), None);
        fence.open_until(Instant::now() + Duration::from_mins(1), 3);
        assert_eq!(fence.check(), Some(3));
        fence.open_until(Instant::now(), 3);
        assert_eq!(fence.check(), None);
        fence.close();
        assert_eq!((fence.check(), Fence::open().check()), (None, Some(0)));
    }
}
