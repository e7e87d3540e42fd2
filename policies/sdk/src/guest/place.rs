//! The interface `partitioning`.

use super::partitioning::exports::partita::policy::partitioning as wit;
use super::{Exported, Instance, ask, refusal, types};
use crate::block::Columns;
use crate::partitioner::{LayoutQuestion, MoveQuestion, Partitioner, Question};

impl<P: Instance + Partitioner> wit::Guest for Exported<P> {
    fn score(question: wit::Block, demand: u32) -> Result<Vec<i32>, types::Refusal> {
        let Columns { view, candidates, .. } = Columns::of(&question).map_err(refusal)?;
        let question = Question { view, demand: demand as usize, candidates };
        ask(|policy: &P| {
            // Exactly as large as the answer, so that handing it to the host needs no second allocation.
            let mut scores = Vec::with_capacity(candidates.len());
            policy.score(&question, &mut scores)?;
            Ok(scores)
        })
    }

    fn propose_layouts(question: wit::Block, budget: wit::Budget) -> Result<wit::Plan, types::Refusal> {
        let Columns { view, .. } = Columns::of(&question).map_err(refusal)?;
        let plan = ask(|policy: &P| policy.propose_layouts(&LayoutQuestion { view, changes: budget.changes as usize }))?;
        Ok(wit::Plan { gpu: plan.gpu, profile: plan.profile, slot: plan.slot })
    }

    fn choose_moves(question: wit::Block, budget: wit::Budget) -> Result<wit::Moves, types::Refusal> {
        let Columns { view, movable, .. } = Columns::of(&question).map_err(refusal)?;
        let moves = ask(|policy: &P| policy.choose_moves(&MoveQuestion { view, pods: movable, changes: budget.changes as usize }))?;
        Ok(wit::Moves { pod: moves.pod, node: moves.node })
    }
}
