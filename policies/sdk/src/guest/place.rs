//! The interface `partitioning`.

use super::partitioning::exports::partita::policy::partitioning as wit;
use super::types::{self, Column};
use super::{Exported, Instance, ask};
use crate::columns::{Candidates, Demands, Gpus, Models, Nodes, Profiles, Shapes, View};
use crate::partitioner::{LayoutQuestion, Movable, MoveQuestion, Partitioner, Question};

/// All columns of a question, end to end: the number of columns, where each starts and the last ends, then the columns.
#[derive(Clone, Copy)]
struct Block<'a>(&'a [u32]);

impl<'a> Block<'a> {
    /// One column; empty if the host has none of that number. A block that contradicts itself is the host's fault, and a trap.
    fn get(self, column: Column) -> &'a [u32] {
        let (words, index) = (self.0, column as usize);
        if index >= words[0] as usize { &[] } else { &words[words[index + 1] as usize..words[index + 2] as usize] }
    }

    fn view(self) -> View<'a> {
        View {
            seed: self.get(Column::ContextSeed).first().copied().unwrap_or(0),
            models: Models {
                gpus: self.get(Column::ModelsGpus),
                memory: self.get(Column::ModelsMemory),
                slots: self.get(Column::ModelsSlots),
            },
            shapes: Shapes {
                model: self.get(Column::ShapesModel),
                gpus: self.get(Column::ShapesGpus),
                cpu_capacity: self.get(Column::ShapesCpuCapacity),
                nodes: self.get(Column::ShapesNodes),
            },
            profiles: Profiles {
                model: self.get(Column::ProfilesModel),
                size: self.get(Column::ProfilesSize),
                compute: self.get(Column::ProfilesCompute),
                memory: self.get(Column::ProfilesMemory),
                starts: self.get(Column::ProfilesStarts),
            },
            nodes: Nodes {
                cpu_free: self.get(Column::NodesCpuFree),
                cpu_capacity: self.get(Column::NodesCpuCapacity),
                memory_free: self.get(Column::NodesMemoryFree),
                memory_capacity: self.get(Column::NodesMemoryCapacity),
                gpu_pods: self.get(Column::NodesGpuPods),
                like_pods: self.get(Column::NodesLikePods),
                gpu_start: self.get(Column::NodesGpuStart),
            },
            gpus: Gpus {
                model: self.get(Column::GpusModel),
                free: self.get(Column::GpusFree),
                used_slots: self.get(Column::GpusUsedSlots),
                warm_slots: self.get(Column::GpusWarmSlots),
                mig: self.get(Column::GpusMig),
            },
            demands: Demands {
                cpu: self.get(Column::DemandsCpu),
                memory: self.get(Column::DemandsMemory),
                count: self.get(Column::DemandsCount),
                milli: self.get(Column::DemandsMilli),
                weight: self.get(Column::DemandsWeight),
                model_start: self.get(Column::DemandsModelStart),
                models: self.get(Column::DemandsModels),
                profile_start: self.get(Column::DemandsProfileStart),
                profiles: self.get(Column::DemandsProfiles),
            },
        }
    }

    fn candidates(self) -> Candidates<'a> {
        Candidates {
            node: self.get(Column::CandidatesNode),
            gpu: self.get(Column::CandidatesGpu),
            profile: self.get(Column::CandidatesProfile),
            slot: self.get(Column::CandidatesSlot),
        }
    }

    fn movable(self) -> Movable<'a> {
        Movable {
            demand: self.get(Column::MovableDemand),
            node: self.get(Column::MovableNode),
            gpu: self.get(Column::MovableGpu),
            slot: self.get(Column::MovableSlot),
        }
    }
}

impl<P: Instance + Partitioner> wit::Guest for Exported<P> {
    fn score(question: wit::Block, demand: u32) -> Result<Vec<i32>, types::Refusal> {
        let block = Block(&question);
        let question = Question { view: block.view(), demand: demand as usize, candidates: block.candidates() };
        ask(|policy: &P| {
            // Exactly as large as the answer, so that handing it to the host needs no second allocation.
            let mut scores = Vec::with_capacity(question.candidates.len());
            policy.score(&question, &mut scores)?;
            Ok(scores)
        })
    }

    fn propose_layouts(question: wit::Block, budget: wit::Budget) -> Result<wit::Plan, types::Refusal> {
        let question = LayoutQuestion { view: Block(&question).view(), changes: budget.changes as usize };
        let plan = ask(|policy: &P| policy.propose_layouts(&question))?;
        Ok(wit::Plan { gpu: plan.gpu, profile: plan.profile, slot: plan.slot })
    }

    fn choose_moves(question: wit::Block, budget: wit::Budget) -> Result<wit::Moves, types::Refusal> {
        let block = Block(&question);
        let question = MoveQuestion { view: block.view(), pods: block.movable(), changes: budget.changes as usize };
        let moves = ask(|policy: &P| policy.choose_moves(&question))?;
        Ok(wit::Moves { pod: moves.pod, node: moves.node })
    }
}
