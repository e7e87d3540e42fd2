//! The fence around every write: see [`crate::lease`].

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

/// The longest time that a call may take.
const CALL_MAX: Duration = Duration::from_secs(5);

/// Lets writes through while this process leads for certain.
#[derive(Clone, Debug)]
pub struct Fence(Arc<State>);

#[derive(Debug)]
struct State {
    started: Instant,
    /// How long a call that was let through may take.
    call: Duration,
    /// Until when writes are let through, milliseconds after the start; 0 while closed.
    open_until: AtomicU64,
    term: AtomicI64,
    /// How many calls that were let through are not over.
    under_way: watch::Sender<usize>,
    /// When the last of those ended that had no answer, which may be carried out later.
    unanswered: Mutex<Option<Instant>>,
}

/// A call that was let through. It is over when this goes.
#[derive(Debug)]
pub(crate) struct Pass {
    fence: Fence,
    answered: bool,
}

impl Pass {
    /// The call was answered: nothing will come of it that did not.
    pub(crate) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.answered {
            *self.fence.0.unanswered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        self.fence.0.under_way.send_modify(|count| *count -= 1);
    }
}

impl Fence {
    /// A closed fence of one who runs for a lease of this duration.
    #[must_use]
    pub fn closed(lease: Duration) -> Self {
        Self(Arc::new(State {
            started: Instant::now(),
            call: CALL_MAX.min(lease / 3),
            open_until: AtomicU64::new(0),
            term: AtomicI64::new(0),
            under_way: watch::Sender::new(0),
            unanswered: Mutex::default(),
        }))
    }

    /// A fence for one who has no rival: never closed.
    #[must_use]
    pub fn open() -> Self {
        let fence = Self::closed(CALL_MAX * 3);
        fence.0.open_until.store(u64::MAX, Ordering::Release);
        fence
    }

    /// How long a call that was let through may take: at most a third of the lease, so that it is over before another can lead.
    #[must_use]
    pub fn call(&self) -> Duration {
        self.0.call
    }

    /// The term in which writes are let through; none while they are not.
    #[must_use]
    pub fn check(&self) -> Option<i64> {
        let now = self.0.started.elapsed().as_millis() as u64;
        (now < self.0.open_until.load(Ordering::Acquire)).then(|| self.0.term.load(Ordering::Acquire))
    }

    /// Lets a call through, if the fence is open.
    pub(crate) fn pass(&self) -> Option<Pass> {
        // Counted before it is looked: one who sees the fence closed and no call counted knows that none follows.
        self.0.under_way.send_modify(|count| *count += 1);
        let pass = Pass { fence: self.clone(), answered: false };
        if self.check().is_some() {
            return Some(pass);
        }
        pass.answered();
        None
    }

    pub(crate) fn open_until(&self, at: Instant, term: i64) {
        self.0.term.store(term, Ordering::Release);
        self.0.open_until.store(at.saturating_duration_since(self.0.started).as_millis() as u64, Ordering::Release);
    }

    pub(crate) fn close(&self) {
        self.0.open_until.store(0, Ordering::Release);
    }

    /// Waits until all calls that were let through are over, but not longer than one may take. True if they are, and all of the last `recent`
    /// were answered.
    pub(crate) async fn drained(&self, recent: Duration) -> bool {
        let mut under_way = self.0.under_way.subscribe();
        let over = tokio::time::timeout(self.0.call, under_way.wait_for(|count| *count == 0)).await.is_ok();
        let unanswered = *self.0.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        over && unanswered.is_none_or(|at| at.elapsed() >= recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn opened() -> Fence {
        let fence = Fence::closed(LEASE);
        fence.open_until(Instant::now() + LEASE, 3);
        fence
    }

    #[tokio::test(start_paused = true)]
    async fn a_fence_closes_by_itself() {
        let fence = Fence::closed(LEASE);
        assert!(fence.check().is_none() && fence.pass().is_none());
        fence.open_until(Instant::now() + LEASE, 3);
        tokio::time::advance(Duration::from_millis(14_999)).await;
        assert_eq!(fence.check(), Some(3));
        assert!(fence.pass().is_some());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(fence.check().is_none() && fence.pass().is_none());
        assert_eq!(Fence::open().check(), Some(0));
    }

    #[test]
    fn a_call_ends_before_another_can_lead() {
        let call = |seconds| Fence::closed(Duration::from_secs(seconds)).call();
        assert_eq!((call(3), call(9), call(15), call(300)), (LEASE / 15, LEASE / 5, LEASE / 3, LEASE / 3));
        assert_eq!(Fence::open().call(), LEASE / 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_let_through_is_waited_for() {
        let fence = opened();
        assert!(fence.drained(LEASE).await);
        let (one, two) = (fence.pass().unwrap(), fence.pass().unwrap());
        fence.close();
        one.answered();
        let ends = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(4)).await;
            two.answered();
        });
        assert!(fence.drained(LEASE).await && ends.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn who_got_no_answer_may_be_heard_later() {
        let fence = opened();
        let held = fence.pass().unwrap();
        assert!(!fence.drained(LEASE).await, "it is not over");
        drop(held);
        assert!(!fence.drained(LEASE).await, "it may still be carried out");
        tokio::time::advance(LEASE).await;
        assert!(fence.drained(LEASE).await);
    }
}
