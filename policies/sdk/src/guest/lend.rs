//! The interface `borrowing`.

use super::borrowing::exports::partita::policy::borrowing as wit;
use super::{Exported, Instance, ask, types};
use crate::quota::{Quota, QuotaView, Quotas, Requests, VictimQuestion, Victims};

/// The columns of `view`, borrowed.
fn columns(view: &wit::View) -> QuotaView<'_> {
    let wit::View { context, quotas, requests, free } = view;
    QuotaView {
        seed: context.seed,
        quotas: Quotas { min: &quotas.min, max: &quotas.max, used: &quotas.used, weight: &quotas.weight, parent: &quotas.parent },
        requests: Requests { quota: &requests.quota, amount: &requests.amount, priority: &requests.priority, age: &requests.age },
        free: *free,
    }
}

impl<P: Instance + Quota> wit::Guest for Exported<P> {
    fn admit(view: wit::View) -> Result<Vec<u32>, types::Refusal> {
        let view = columns(&view);
        ask(|policy: &P| {
            let mut verdicts = Vec::with_capacity(view.requests.quota.len());
            policy.admit(&view, &mut verdicts)?;
            Ok(verdicts.into_iter().map(|verdict| verdict as u32).collect())
        })
    }

    fn order_victims(view: wit::View, request: u32, victims: wit::Victims) -> Result<Vec<u32>, types::Refusal> {
        let wit::Victims { quota, amount, borrowed, priority, age } = &victims;
        let victims = Victims { quota, amount, borrowed, priority, age };
        let question = VictimQuestion { view: columns(&view), request: request as usize, victims };
        ask(|policy: &P| {
            let mut order = Vec::with_capacity(question.victims.quota.len());
            policy.order_victims(&question, &mut order)?;
            Ok(order)
        })
    }

    fn shares(view: wit::View) -> Result<Vec<u32>, types::Refusal> {
        let view = columns(&view);
        ask(|policy: &P| {
            let mut shares = Vec::with_capacity(view.quotas.min.len());
            policy.shares(&view, &mut shares)?;
            Ok(shares)
        })
    }
}
