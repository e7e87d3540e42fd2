//! Who leads: a Lease, and a fence around every write.
//!
//! A candidate that sees the lease unchanged for its whole duration, by its own monotonic clock, takes it over with a `replace` that names the
//! version it saw, so of two only one succeeds. Only time in which the API server answers counts: while it stands still, calls of the leader
//! stand still in it, and are carried out when it goes on. The leader renews the lease every tenth of its duration, and its [`Fence`] closes
//! two thirds after the last renewal that it knows to have succeeded. A call that the fence let through ends, here and at the API server,
//! within a third, so that it is over before anybody else can lead. Clocks of two machines are never compared.
//!
//! The *term* is the lease's count of transitions: it grows with every new holder, travels in every layout that is written, and the API
//! server refuses one that is lower than what stands there.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

pub use crate::fence::Fence;
use crate::limit::limited;

/// The longest pause between two looks at the lease.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Which lease, and for how long.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace of the lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who this is: see [`identity`].
    pub identity: String,
    /// How long the lease lasts after a renewal.
    pub duration: Duration,
}

impl Config {
    /// How long after a renewal the leader acts.
    fn acts(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// The pause between two looks at the lease, whether the last one went well or not.
    fn retry(&self) -> Duration {
        RETRY_MAX.min(self.duration / 10)
    }

    /// How long one look may take: some fit into the time in which the leader acts.
    fn look(&self) -> Duration {
        self.duration / 5
    }
}

/// The most letters of a name in an identity: events name who left them in 128 bytes.
const NAME_MAX: usize = 100;

/// An identity that no other process has, whatever they are named: `NAME_` and 16 random hexadecimal digits.
///
/// # Errors
/// If the operating system has no random numbers to give.
pub fn identity(name: &str) -> std::io::Result<String> {
    let random = getrandom::u64().map_err(std::io::Error::other)?;
    let name: String = name.chars().take(NAME_MAX).collect();
    Ok(format!("{name}_{random:016x}"))
}

/// What a candidate does next. Pure: what it saw and when comes in, what to do comes out.
#[derive(Debug)]
struct Candidate {
    identity: String,
    duration: Duration,
    /// What may lie between two looks at most, to count.
    gap: Duration,
    /// The term that it wrote last, or tried to.
    wrote: Option<i32>,
    /// Another's lease, as it was seen last.
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Seen {
    version: String,
    /// For how long it has stood still while the API server answered.
    stood: Duration,
    /// The last look, if it was answered.
    at: Option<Instant>,
}

/// What to do about a lease.
#[derive(Debug, PartialEq)]
enum Step {
    /// It is this one's.
    Wait(String),
    /// Write this, as the next version of what was seen.
    Write(LeaseSpec),
}

impl Candidate {
    fn new(config: &Config) -> Self {
        let gap = config.retry() + config.look();
        Self { identity: config.identity.clone(), duration: config.duration, gap, wrote: None, seen: None }
    }

    /// What to do about the lease, which looks like this now.
    fn step(&mut self, lease: Option<&Lease>, now: Instant) -> Step {
        let spec = lease.and_then(|lease| lease.spec.as_ref());
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let transitions = spec.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        // What another process wrote under the same name is another's.
        if holder == self.identity && self.wrote == Some(transitions) {
            return self.write(transitions, spec.and_then(|spec| spec.acquire_time.clone()));
        }
        if !holder.is_empty() {
            let version = lease.and_then(|lease| lease.metadata.resource_version.as_deref()).unwrap_or_default();
            // The holder's duration may be longer than ours.
            let theirs = spec.and_then(|spec| spec.lease_duration_seconds).map_or(0, |seconds| u64::try_from(seconds).unwrap_or(0));
            if self.stood(version, now) < self.duration.max(Duration::from_secs(theirs)) {
                return Step::Wait(holder.to_owned());
            }
        }
        self.write(transitions.saturating_add(1), None)
    }

    /// For how long this version stood still.
    fn stood(&mut self, version: &str, now: Instant) -> Duration {
        match &mut self.seen {
            Some(seen) if seen.version == version => {
                seen.stood += seen.at.map_or(Duration::ZERO, |at| now.duration_since(at).min(self.gap));
                seen.at = Some(now);
                seen.stood
            }
            _ => {
                self.seen = Some(Seen { version: version.to_owned(), stood: Duration::ZERO, at: Some(now) });
                Duration::ZERO
            }
        }
    }

    /// The API server did not answer: the time since the last look and until the next does not count.
    fn missed(&mut self) {
        if let Some(seen) = &mut self.seen {
            seen.at = None;
        }
    }

    fn write(&mut self, transitions: i32, since: Option<MicroTime>) -> Step {
        self.wrote = Some(transitions);
        let now = MicroTime(Timestamp::now());
        Step::Write(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.duration.as_secs().max(1) as i32),
            acquire_time: Some(since.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        })
    }
}

/// Runs for the lease, renews it while it has it, and returns when it lost it; `term` says in which term it leads.
///
/// `stop` gives the lease up, so that another need not wait.
pub async fn run(client: Client, config: Config, fence: Fence, term: watch::Sender<Option<i64>>, mut stop: watch::Receiver<bool>) {
    let leases: Api<Lease> = Api::namespaced(limited(&client, config.look()), &config.namespace);
    let mut candidate = Candidate::new(&config);
    // Until when it leads.
    let mut until: Option<Instant> = None;
    let mut rival = String::new();
    loop {
        let asked = Instant::now();
        match look(&leases, &config, &mut candidate).await {
            Some(Found::Ours(now_term)) => {
                // Reckoned from before the request: that is when the API server can first have written it.
                fence.open_until(asked + config.acts(), now_term);
                if until.replace(asked + config.acts()).is_none() {
                    tracing::info!(identity = config.identity, term = now_term, "leads");
                    term.send_replace(Some(now_term));
                }
            }
            Some(Found::Held(_)) if until.is_some() => break,
            Some(Found::Held(holder)) if holder != rival => {
                tracing::warn!("waits for the lease {}/{}, which {holder} holds", config.namespace, config.name);
                rival = holder;
            }
            Some(Found::Held(_) | Found::Changed) | None => {}
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        let wake = Instant::now() + config.retry();
        tokio::select! {
            () = tokio::time::sleep_until(until.map_or(wake, |until| wake.min(until))) => {}
            () = async { drop(stop.wait_for(|stop| *stop).await) } => {
                fence.close();
                if until.is_some() {
                    give_up(&leases, &config, &fence).await;
                }
                break;
            }
        }
    }
    fence.close();
    term.send_replace(None);
}

/// What came of a look at the lease.
enum Found {
    /// It is ours, in this term.
    Ours(i64),
    /// It is this one's.
    Held(String),
    /// It changed between reading and writing.
    Changed,
}

/// One look at the lease, which is renewed or taken over if it may be; none without an answer.
async fn look(leases: &Api<Lease>, config: &Config, candidate: &mut Candidate) -> Option<Found> {
    let why = match timeout(config.look(), turn(leases, config, candidate)).await {
        Ok(Ok(found)) => return Some(found),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} ms", config.look().as_millis()),
    };
    candidate.missed();
    tracing::warn!("the lease {}/{} could not be read or written: {why}", config.namespace, config.name);
    None
}

async fn turn(leases: &Api<Lease>, config: &Config, candidate: &mut Candidate) -> Result<Found, kube::Error> {
    let lease = leases.get_opt(&config.name).await?;
    let spec = match candidate.step(lease.as_ref(), Instant::now()) {
        Step::Wait(holder) => return Ok(Found::Held(holder)),
        Step::Write(spec) => spec,
    };
    let held = i64::from(spec.lease_transitions.unwrap_or(0));
    let written = if let Some(mut lease) = lease {
        lease.spec = Some(spec);
        leases.replace(&config.name, &PostParams::default(), &lease).await
    } else {
        let metadata = ObjectMeta { name: Some(config.name.clone()), ..ObjectMeta::default() };
        leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await
    };
    match written {
        Ok(_) => Ok(Found::Ours(held)),
        // Somebody else was faster, or an earlier try of ours came late: the next look tells.
        Err(kube::Error::Api(error)) if error.code == 409 => Ok(Found::Changed),
        Err(error) => Err(error),
    }
}

/// Leaves the lease without a holder, if it is still ours and all that was let through the fence is over: the next one may lead at once.
async fn give_up(leases: &Api<Lease>, config: &Config, fence: &Fence) {
    if !fence.drained(config.duration).await {
        tracing::warn!("calls to the API server may still be carried out: the lease is kept, the next leader waits for its end");
        return;
    }
    let given = async {
        let Some(mut lease) = leases.get_opt(&config.name).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(&config.identity) {
            spec.holder_identity = Some(String::new());
            leases.replace(&config.name, &PostParams::default(), &lease).await?;
        }
        Ok::<(), kube::Error>(())
    };
    match timeout(config.look(), given).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("the lease could not be given up, the next leader waits for its end: {error}"),
        Err(_) => tracing::warn!("the lease could not be given up in time, the next leader waits for its end"),
    }
}

#[cfg(test)]
mod tests;
