//! The interface `partitioning`.

use std::cell::RefCell;

use super::partitioning::exports::partita::policy::partitioning as wit;
use super::{Exported, Instance, ask, refusal, types};
use crate::block::{Columns, Outlook};
use crate::partitioner::{LayoutQuestion, MoveQuestion, Partitioner, Question};

impl<P: Instance + Partitioner> wit::Guest for Exported<P> {
    fn expect(outlook: wit::Block) {
        // A host that sends no block here sends none in questions, where it can be told.
        OUTLOOK.with_borrow_mut(|kept| kept.renew(&outlook).unwrap_or_default());
    }

    fn score(question: wit::Block, demand: u32) -> Result<Vec<i32>, types::Refusal> {
        put(&question, |Columns { view, candidates, .. }| {
            let question = Question { view, demand: demand as usize, candidates };
            ask(|policy: &P| {
                // Exactly as large as the answer, so that handing it to the host needs no second allocation.
                let mut scores = Vec::with_capacity(candidates.len());
                policy.score(&question, &mut scores)?;
                Ok(scores)
            })
        })
    }

    fn propose_layouts(question: wit::Block, budget: wit::Budget) -> Result<wit::Plan, types::Refusal> {
        put(&question, |Columns { view, .. }| {
            let plan = ask(|policy: &P| policy.propose_layouts(&LayoutQuestion { view, changes: budget.changes as usize }))?;
            Ok(wit::Plan { gpu: plan.gpu, profile: plan.profile, slot: plan.slot })
        })
    }

    fn choose_moves(question: wit::Block, budget: wit::Budget) -> Result<wit::Moves, types::Refusal> {
        put(&question, |Columns { view, movable, .. }| {
            let moves = ask(|policy: &P| policy.choose_moves(&MoveQuestion { view, pods: movable, changes: budget.changes as usize }))?;
            Ok(wit::Moves { pod: moves.pod, node: moves.node })
        })
    }
}

thread_local! {
    /// What this instance was told to expect.
    static OUTLOOK: RefCell<Outlook> = RefCell::default();
}

/// Runs `answer` on the columns of a question.
fn put<R>(question: &[u32], answer: impl FnOnce(Columns<'_>) -> Result<R, types::Refusal>) -> Result<R, types::Refusal> {
    OUTLOOK.with_borrow_mut(|outlook| answer(Columns::of(question, outlook).map_err(refusal)?))
}
