//! The loop: everything seen and done is told to the brain in batches, and what it wants goes to the hands.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use kube::Client;
use partita_core::policy::Partitioner;
use tokio::sync::{mpsc, watch};

use crate::{
    hands::Hands,
    lease::{self, Fence},
    scheduler::{
        Counted, Metrics, Scheduler,
        effect::{Done, Effect, Outcome},
    },
    watch::{Fresh, Health, INBOX_MAX, Seen, Watches},
};

/// What is taken in before the next round at most: a round decides on all that is known, so more would only delay it.
const EVENTS_PER_ROUND: usize = 1_024;
/// The loop turns at least this often, so that a stuck one can be told from an idle one.
const BEAT: Duration = Duration::from_secs(1);
/// How often nodes, GPUs and partitions are counted for the metrics, milliseconds: a look at every GPU.
const LOOK_EVERY_MS: u64 = 10_000;
/// A loop that has not turned for so long is stuck: a round takes milliseconds, and a policy that hangs is stopped after a second.
const STUCK: Duration = Duration::from_mins(1);

/// What comes to the loop.
#[derive(Debug)]
pub enum Message {
    /// From a watch.
    Seen(Seen),
    /// All that was there when this process began to lead was told.
    Fresh,
    /// From the hands.
    Done(Done),
}

impl From<Fresh> for Message {
    fn from(_: Fresh) -> Self {
        Self::Fresh
    }
}

impl From<Seen> for Message {
    fn from(seen: Seen) -> Self {
        Self::Seen(seen)
    }
}

impl From<Done> for Message {
    fn from(done: Done) -> Self {
        Self::Done(done)
    }
}

/// A scheduler at work, to look at from elsewhere.
pub struct Shared {
    brain: Mutex<Scheduler>,
    started: Instant,
    /// When the loop turned last, milliseconds after the start.
    beat_ms: AtomicU64,
    /// When the metrics of the cluster are measured anew, milliseconds after the start.
    look_at_ms: AtomicU64,
    health: Mutex<Option<Arc<Health>>>,
    metrics: Metrics,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// A scheduler that has not begun.
    #[must_use]
    pub fn new(mut brain: Scheduler, metrics: Metrics) -> Self {
        brain.set_clock(jiff::Timestamp::now().as_millisecond());
        Self {
            brain: Mutex::new(brain),
            started: Instant::now(),
            beat_ms: AtomicU64::new(0),
            look_at_ms: AtomicU64::new(0),
            health: Mutex::default(),
            metrics,
        }
    }

    /// The brain, for a look.
    pub fn brain(&self) -> MutexGuard<'_, Scheduler> {
        self.brain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the loop turns.
    ///
    /// # Errors
    /// Since when it does not.
    pub fn live(&self) -> Result<(), String> {
        let still = self.now_ms().saturating_sub(self.beat_ms.load(Ordering::Relaxed));
        if still < STUCK.as_millis() as u64 { Ok(()) } else { Err(format!("the scheduler's loop has not turned for {} s", still / 1000)) }
    }

    /// Whether the scheduler knows the cluster well enough to decide.
    ///
    /// # Errors
    /// What is missing.
    pub fn ready(&self) -> Result<(), String> {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner).clone();
        health.ok_or("the watches have not begun").map_err(str::to_owned)?.check()?;
        if self.brain().is_complete() { Ok(()) } else { Err("what was listed is not taken in yet".into()) }
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// How the loop goes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who this process is among its replicas.
    pub identity: String,
    /// The lease that it must hold to act; none to act alone.
    pub lease: Option<lease::Config>,
    /// Decide and report, but write nothing.
    pub dry_run: bool,
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to stop.
    Stopped,
    /// Another process may lead now. This one must end: what it assumed is worth nothing any more.
    LostLease,
    /// A watch ended, which is a bug: what happens in the cluster is not seen any more.
    Blind,
}

/// Schedules until told to stop, or until the lease is lost. `report` learns of every effect of a dry run.
///
/// `client` must not repeat requests by itself: see [`Hands`].
pub async fn run(
    client: Client,
    options: &Options,
    shared: &Shared,
    mut policies: Vec<Box<dyn Partitioner + Send>>,
    report: &mut (dyn FnMut(&Effect) + Send),
    mut stop: watch::Receiver<bool>,
) -> End {
    let (sender, mut inbox) = mpsc::channel::<Message>(INBOX_MAX);
    // They end with this function.
    let mut watches = Watches::start(&client, &sender);
    *shared.health.lock().unwrap_or_else(PoisonError::into_inner) = Some(watches.health());
    let (fence, mut term) = run_for_lease(&client, options, &stop);
    let hands = Hands::new(&client, fence, &options.identity, shared.metrics.clone());
    let mut batch = Vec::with_capacity(EVENTS_PER_ROUND);
    let end = loop {
        let leads = term.borrow().is_some();
        if leads {
            // Whoever led before is done by now, and what it did is in what is listed from now on.
            watches.anew();
        }
        let wakes = shared.brain().wakes_in_ms().map_or(BEAT, |ms| Duration::from_millis(ms).min(BEAT));
        tokio::select! {
            _ = inbox.recv_many(&mut batch, EVENTS_PER_ROUND) => {}
            () = tokio::time::sleep(wakes) => {}
            changed = term.changed() => if changed.is_err() {
                break gone(&stop);
            },
            why = watches.ended() => {
                tracing::error!("{why}: the cluster is not seen any more");
                break End::Blind;
            }
            () = async { drop(stop.wait_for(|stop| *stop).await) } => break End::Stopped,
        }
        let held = *term.borrow_and_update();
        if leads && held.is_none() {
            break gone(&stop);
        }
        let now_ms = shared.now_ms();
        for effect in turn(shared, now_ms, held, &mut batch, &mut policies) {
            if options.dry_run {
                report(&effect);
                shared.brain().done(now_ms, effect.ends(Outcome::Done));
            } else {
                hands.start(effect, &sender);
            }
        }
        shared.beat_ms.store(now_ms, Ordering::Relaxed);
    };
    shared.metrics.leads(false);
    if let (End::Stopped, Some(lease)) = (end, &options.lease) {
        // The lease is given up by its own task, once all calls are over; wait for that, so that the next leader need not.
        let _ = tokio::time::timeout(lease.duration, term.wait_for(Option::is_none)).await;
    }
    end
}

/// Why the lease is not ours any more.
fn gone(stop: &watch::Receiver<bool>) -> End {
    if *stop.borrow() { End::Stopped } else { End::LostLease }
}

/// Tells the brain what happened, and returns what it wants. It acts from when it was told of all that was there when the lease was taken.
fn turn(
    shared: &Shared,
    now_ms: u64,
    held: Option<i64>,
    batch: &mut Vec<Message>,
    policies: &mut [Box<dyn Partitioner + Send>],
) -> Vec<Effect> {
    let _span = tracing::info_span!("round", news = batch.len()).entered();
    let mut brain = shared.brain();
    for message in batch.drain(..) {
        match (message, held) {
            (Message::Seen(seen), _) => brain.see(now_ms, seen),
            (Message::Done(done), _) => brain.done(now_ms, done),
            (Message::Fresh, Some(term)) => {
                brain.lead(term);
                shared.metrics.leads(true);
            }
            // The lease was lost meanwhile.
            (Message::Fresh, None) => {}
        }
    }
    let mut counted: Vec<Counted<'_>> =
        policies.iter_mut().map(|policy| Counted { policy: &mut **policy, metrics: &shared.metrics }).collect();
    let mut chain: Vec<&mut dyn Partitioner> = counted.iter_mut().map(|policy| policy as &mut dyn Partitioner).collect();
    let started = Instant::now();
    let effects = brain.turn(now_ms, &mut chain);
    shared.metrics.round_took(started.elapsed().as_secs_f64());
    if brain.is_complete() && now_ms >= shared.look_at_ms.load(Ordering::Relaxed) {
        shared.look_at_ms.store(now_ms + LOOK_EVERY_MS, Ordering::Relaxed);
        shared.metrics.look(brain.planner());
    }
    effects
}

/// Begins to run for the lease; without one, leads from the start.
fn run_for_lease(client: &Client, options: &Options, stop: &watch::Receiver<bool>) -> (Fence, watch::Receiver<Option<i64>>) {
    let Some(config) = options.lease.clone() else {
        let (sender, term) = watch::channel(Some(0));
        // Nobody ever changes it; the sender lives as long as the process.
        std::mem::forget(sender);
        return (Fence::open(), term);
    };
    let fence = Fence::closed(config.duration);
    let (sender, term) = watch::channel(None);
    tokio::spawn(lease::run(client.clone(), config, fence.clone(), sender, stop.clone()));
    (fence, term)
}

#[cfg(test)]
mod tests {
    use partita_core::Config;
    use prometheus_client::registry::Registry;
    use serde_json::json;

    use super::*;

    fn node(name: &str) -> Message {
        let object = json!({ "metadata": { "name": name }, "status": { "allocatable": { "cpu": "1" } } });
        Message::Seen(Seen::Node(name.into(), Some(Box::new(serde_json::from_value(object).unwrap()))))
    }

    /// A scheduler, and what it shows under a name.
    fn scheduler() -> (Shared, impl Fn(&str) -> String) {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let shared = Shared::new(Scheduler::new("partita", Config::default(), false, metrics.clone()), metrics);
        let shown = move |name: &str| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
        };
        (shared, shown)
    }

    #[test]
    fn the_cluster_is_measured_now_and_then_whoever_asks() {
        let (shared, shown) = scheduler();
        let seen = |at_ms: u64, more: Message| drop(turn(&shared, at_ms, None, &mut vec![more], &mut []));
        seen(1, node("a"));
        seen(2, Message::Seen(Seen::Complete));
        assert_eq!(shown("partita_nodes "), "1");
        seen(LOOK_EVERY_MS, node("b"));
        assert_eq!(shown("partita_nodes "), "1");
        seen(LOOK_EVERY_MS + 2, node("c"));
        assert_eq!(shown("partita_nodes "), "3");
    }

    #[test]
    fn it_leads_when_all_that_was_there_was_told_and_not_before() {
        let (shared, shown) = scheduler();
        drop(turn(&shared, 1, Some(3), &mut vec![node("a"), Message::Seen(Seen::Complete)], &mut []));
        assert_eq!((shown("partita_leader "), shared.brain().wakes_in_ms()), ("0".into(), None));
        drop(turn(&shared, 2, None, &mut vec![Message::Fresh], &mut []));
        assert_eq!((shown("partita_leader "), shared.brain().wakes_in_ms()), ("0".into(), None));
        drop(turn(&shared, 3, Some(3), &mut vec![Message::Fresh, node("b")], &mut []));
        assert_eq!(shown("partita_leader "), "1");
    }
}
