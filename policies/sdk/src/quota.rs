//! Strategies that lend quota and take it back.

use crate::policy::{Policy, Refusal};

/// Quotas and one resource of each; row = quota. Amounts are in the unit of that resource.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quotas<'a> {
    /// Guaranteed amount.
    pub min: &'a [u32],
    /// Ceiling; [`NONE`](crate::NONE) where there is no ceiling.
    pub max: &'a [u32],
    /// Amount in use.
    pub used: &'a [u32],
    /// Weight among siblings.
    pub weight: &'a [u32],
    /// Row of the parent quota, else [`NONE`](crate::NONE).
    pub parent: &'a [u32],
}

/// Pods that wait, in the host's order; row = pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requests<'a> {
    /// Row of [`Quotas`].
    pub quota: &'a [u32],
    /// Amount asked.
    pub amount: &'a [u32],
    /// Kubernetes priority.
    pub priority: &'a [i32],
    /// Seconds waited.
    pub age: &'a [u32],
}

/// Running pods that may be evicted; row = pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct Victims<'a> {
    /// Row of [`Quotas`].
    pub quota: &'a [u32],
    /// Amount held.
    pub amount: &'a [u32],
    /// 1 if the pod runs on borrowed quota, else 0.
    pub borrowed: &'a [u32],
    /// Kubernetes priority.
    pub priority: &'a [i32],
    /// Seconds since it was bound.
    pub age: &'a [u32],
}

/// What a policy sees of one resource.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuotaView<'a> {
    /// The only randomness, drawn by the host for each decision.
    pub seed: u32,
    /// The quotas.
    pub quotas: Quotas<'a>,
    /// The pods that wait.
    pub requests: Requests<'a>,
    /// Amount of the resource that nobody uses.
    pub free: u32,
}

/// In which order do pods give back what request row `request` needs?
#[derive(Clone, Copy, Debug)]
pub struct VictimQuestion<'a> {
    /// The resource.
    pub view: QuotaView<'a>,
    /// Row of [`Requests`].
    pub request: usize,
    /// The pods that may be evicted.
    pub victims: Victims<'a>,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// It waits.
    No = 0,
    /// It starts within its own quota.
    Within = 1,
    /// It starts by borrowing.
    Borrow = 2,
}

/// A strategy that lends quota and takes it back. The host refuses whatever breaks a guarantee.
pub trait Quota: Policy {
    /// Writes one verdict a request into `verdicts`, which comes empty and with room for all of them.
    ///
    /// # Errors
    /// A [`Refusal`] when there is no answer.
    fn admit(&self, view: &QuotaView<'_>, verdicts: &mut Vec<Verdict>) -> Result<(), Refusal>;

    /// Writes the rows of the victims into `order`, in the order in which they give back; those left out are kept.
    ///
    /// # Errors
    /// A [`Refusal`] when there is no answer; unless overridden, always.
    fn order_victims(&self, _question: &VictimQuestion<'_>, _order: &mut Vec<u32>) -> Result<(), Refusal> {
        Err(Refusal::declined(format!("{} orders no victims", Self::NAME)))
    }

    /// Writes, for each quota, the amount that it should have of what is idle now.
    ///
    /// # Errors
    /// A [`Refusal`] when there is no answer; unless overridden, always.
    fn shares(&self, _view: &QuotaView<'_>, _shares: &mut Vec<u32>) -> Result<(), Refusal> {
        Err(Refusal::declined(format!("{} shares nothing out", Self::NAME)))
    }
}
