//! A quota policy: whoever stays within the guarantee starts, whoever finds the rest idle borrows, and the youngest borrower gives back
//! first.
//!
//! Built for `wasm32-unknown-unknown` it is a core module for the world `quota`; natively it is a test of the same source.

use partita_sdk::{Issue, NONE, NoSettings, Policy, Quota, QuotaView, Refusal, Verdict, VictimQuestion};

/// The policy.
#[derive(Debug)]
pub struct Lend;

impl Policy for Lend {
    type Settings = NoSettings;
    const NAME: &str = "lend";
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const READS: &[&str] = &[];

    fn new(_: NoSettings) -> Result<Self, Vec<Issue>> {
        Ok(Self)
    }
}

impl Quota for Lend {
    fn admit(&self, view: &QuotaView<'_>, verdicts: &mut Vec<Verdict>) -> Result<(), Refusal> {
        let (quotas, requests) = (&view.quotas, &view.requests);
        let mut used = quotas.used.to_vec();
        let mut free = view.free;
        for (&quota, &amount) in requests.quota.iter().zip(requests.amount) {
            let quota = quota as usize;
            let (wanted, max) = (used[quota].saturating_add(amount), quotas.max[quota]);
            let verdict = match (amount <= free, wanted <= quotas.min[quota], max == NONE || wanted <= max) {
                (true, true, _) => Verdict::Within,
                (true, false, true) => Verdict::Borrow,
                _ => Verdict::No,
            };
            if verdict != Verdict::No {
                used[quota] = wanted;
                free -= amount;
            }
            verdicts.push(verdict);
        }
        Ok(())
    }

    fn order_victims(&self, question: &VictimQuestion<'_>, order: &mut Vec<u32>) -> Result<(), Refusal> {
        let victims = &question.victims;
        order.extend((0u32..).zip(victims.borrowed).filter(|(_, borrowed)| **borrowed == 1).map(|(row, _)| row));
        order.sort_by_key(|&row| (victims.priority[row as usize], victims.age[row as usize]));
        Ok(())
    }
}

partita_sdk::export_quota!(Lend);

#[cfg(test)]
mod tests {
    use partita_sdk::{Quotas, Requests, Victims};

    use super::*;

    fn view() -> QuotaView<'static> {
        QuotaView {
            quotas: Quotas { min: &[4, 2], max: &[NONE, 3], used: &[2, 2], weight: &[1, 1], parent: &[NONE, NONE] },
            requests: Requests { quota: &[0, 1, 1, 0, 0], amount: &[2, 1, 1, 5, 1], priority: &[0; 5], age: &[0; 5] },
            free: 4,
            ..QuotaView::default()
        }
    }

    #[test]
    fn guarantees_come_first_and_the_rest_is_lent() {
        let mut verdicts = Vec::new();
        Lend.admit(&view(), &mut verdicts).unwrap();
        assert_eq!(verdicts, [Verdict::Within, Verdict::Borrow, Verdict::No, Verdict::No, Verdict::Borrow]);
    }

    #[test]
    fn the_least_important_and_youngest_borrower_gives_back_first() {
        let victims = Victims { quota: &[1; 4], amount: &[1; 4], borrowed: &[1, 0, 1, 1], priority: &[5, 0, 0, 0], age: &[1, 1, 9, 3] };
        let mut order = Vec::new();
        Lend.order_victims(&VictimQuestion { view: view(), request: 0, victims }, &mut order).unwrap();
        assert_eq!(order, [3, 2, 0]);
    }

    #[test]
    fn what_is_not_overridden_is_declined() {
        assert_eq!(Lend.shares(&view(), &mut Vec::new()), Err(Refusal::Declined("lend shares nothing out".into())));
    }
}
