//! Policies compiled into this program: no engine, no limits, the last link of every chain.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use partita_core::policy::{self, Cause, Fault, Partitioner, Reads, Revision};
use partita_sdk::{Candidates, Demands, Gpus, Models, Movable, MoveQuestion, Native, Nodes, Profiles, Question, Refusal, Shapes, View};

use crate::describe::{Info, Starts, project};
use crate::host::{Host, LoadError, Loaded, Reason, SettingsIssue, Stage, check_settings};
use crate::instance::check_scores;
use crate::limits::{DETAIL_CHARS, Limits};
use crate::revision;
use crate::stats::Stats;
use crate::text::clean;

/// A native policy with its settings.
///
/// It is part of this program and so trusted not to loop; a panic in it is caught all the same, since the scheduler outlives any decision.
pub struct NativePolicy {
    policy: Box<dyn Native + Send>,
    info: Info,
    reads: Reads,
    revision: Revision,
    stats: Stats,
}

impl fmt::Debug for NativePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativePolicy").field("name", &self.info.name).field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl NativePolicy {
    /// Configures `policy` with `settings`, a JSON document or the empty text.
    ///
    /// # Errors
    /// What the policy finds wrong with the settings, or what is wrong with its description.
    pub fn new(mut policy: Box<dyn Native + Send>, settings: &str) -> Result<Self, LoadError> {
        let described = policy.describe();
        let info = Info {
            name: described.name.to_owned(),
            version: described.version.to_owned(),
            settings_schema: described.settings_schema.to_owned(),
            reads: described.reads.iter().map(|column| (*column).to_owned()).collect(),
        };
        let refused = |stage, reason| LoadError { name: info.name.clone(), stage, reason };
        check_settings(settings).map_err(|reason| refused(Stage::Request, reason))?;
        info.check().map_err(|error| refused(Stage::Describe, Reason::Info(error)))?;
        policy.configure(settings).map_err(|issues| {
            let issues = issues.into_iter().map(|issue| SettingsIssue { path: issue.path, message: issue.message }).collect();
            refused(Stage::Settings, Reason::Settings(issues))
        })?;
        let reads = info.reads();
        Ok(Self { policy, info, reads, revision: revision::next(), stats: Stats::default() })
    }

    /// What the policy says of itself.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn answer(&mut self, question: &Question<'_>, scores: &mut Vec<i32>) -> Result<(), Fault> {
        let count = question.candidates.len();
        // A policy's state is its settings and scratch memory, neither of which a panic can leave in a state that matters.
        match catch_unwind(AssertUnwindSafe(|| self.policy.score(question, scores))) {
            Ok(Ok(())) => check_scores(scores, count),
            Ok(Err(Refusal::Declined(reason))) => Err(Fault { cause: Cause::Declined, detail: reason }),
            Ok(Err(Refusal::Unsupported(reason))) => {
                Err(Fault { cause: Cause::Declined, detail: format!("unsupported question: {reason}") })
            }
            Err(panic) => Err(Fault { cause: Cause::Trap, detail: format!("panic: {}", message(&*panic)) }),
        }
    }
}

impl Partitioner for NativePolicy {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn reads(&self) -> Reads {
        self.reads
    }

    fn ready(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn score(
        &mut self,
        view: &policy::View<'_>,
        demand: u32,
        candidates: &policy::Candidates<'_>,
        scores: &mut Vec<i32>,
    ) -> Result<(), Fault> {
        scores.clear();
        self.stats.calls += 1;
        let mut starts = Starts::default();
        let (view, demand) = project(view, demand, self.reads, &mut starts);
        let question = Question { view: borrow(&view), demand: demand as usize, candidates: borrow_candidates(candidates) };
        let result = self.answer(&question, scores);
        match &result {
            Ok(()) => self.stats.answered += 1,
            Err(fault) => self.stats.faults.add(fault.cause),
        }
        result
    }

    fn choose_moves(&mut self, view: &policy::View<'_>, _mix: u32, pods: &policy::Movable<'_>, most: u32) -> Result<policy::Moves, Fault> {
        self.stats.calls += 1;
        let movable = Movable { demand: pods.demand, node: pods.node, gpu: pods.gpu, slot: pods.slot };
        let question = MoveQuestion { view: borrow(view), pods: movable, changes: most as usize };
        let result = match catch_unwind(AssertUnwindSafe(|| self.policy.choose_moves(&question))) {
            Ok(Ok(moves)) => Ok(policy::Moves { pod: moves.pod, node: moves.node }),
            Ok(Err(Refusal::Declined(reason) | Refusal::Unsupported(reason))) => Err(Fault { cause: Cause::Declined, detail: reason }),
            Err(panic) => Err(Fault { cause: Cause::Trap, detail: format!("panic: {}", message(&*panic)) }),
        };
        match &result {
            Ok(_) => self.stats.answered += 1,
            Err(fault) => self.stats.faults.add(fault.cause),
        }
        result
    }

    fn refused(&mut self, fault: &Fault) {
        self.stats.refused += 1;
        self.stats.faults.add(fault.cause);
    }
}

/// The native twin of bundled policy `name` with `settings`.
///
/// # Errors
/// When there is no such policy, or the settings are wrong.
pub fn native(name: &str, settings: &str) -> Result<NativePolicy, LoadError> {
    NativePolicy::new((by_name(name)?.native)(), settings)
}

impl Host {
    /// Loads the component of bundled policy `name`, like any other component.
    ///
    /// # Errors
    /// When there is no such policy, or as [`Host::load`].
    pub fn load_bundled(&self, name: &str, settings: &str, limits: Limits) -> Result<Loaded, LoadError> {
        self.load(name, by_name(name)?.component, settings, limits)
    }
}

fn by_name(name: &str) -> Result<&'static partita_policies::Bundled, LoadError> {
    partita_policies::by_name(name).ok_or_else(|| {
        let known: Vec<&str> = partita_policies::all().iter().map(|policy| policy.name).collect();
        LoadError { name: clean(name, DETAIL_CHARS), stage: Stage::Request, reason: Reason::Unknown { known: known.join(", ") } }
    })
}

/// The text of a panic.
fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    clean(text.unwrap_or("without a message"), DETAIL_CHARS)
}

/// `view` in the types of the SDK: pointers only, no column is copied.
fn borrow<'a>(view: &policy::View<'a>) -> View<'a> {
    let policy::View { seed, outlook, models, shapes, profiles, nodes, gpus, demands } = *view;
    View {
        seed,
        outlook,
        models: Models { gpus: models.gpus, memory: models.memory, slots: models.slots },
        shapes: Shapes { model: shapes.model, gpus: shapes.gpus, cpu_capacity: shapes.cpu_capacity, nodes: shapes.nodes },
        profiles: Profiles {
            model: profiles.model,
            size: profiles.size,
            compute: profiles.compute,
            memory: profiles.memory,
            starts: profiles.starts,
        },
        nodes: Nodes {
            cpu_free: nodes.cpu_free,
            cpu_capacity: nodes.cpu_capacity,
            memory_free: nodes.memory_free,
            memory_capacity: nodes.memory_capacity,
            gpu_pods: nodes.gpu_pods,
            like_pods: nodes.like_pods,
            gpu_start: nodes.gpu_start,
        },
        gpus: Gpus { model: gpus.model, free: gpus.free, used_slots: gpus.used_slots, warm_slots: gpus.warm_slots, mig: gpus.mig },
        demands: Demands {
            cpu: demands.cpu,
            memory: demands.memory,
            count: demands.count,
            milli: demands.milli,
            weight: demands.weight,
            model_start: demands.model_start,
            models: demands.models,
            profile_start: demands.profile_start,
            profiles: demands.profiles,
        },
    }
}

/// `candidates` in the types of the SDK.
fn borrow_candidates<'a>(candidates: &policy::Candidates<'a>) -> Candidates<'a> {
    Candidates {
        node: candidates.node,
        gpu: candidates.gpu,
        profile: candidates.profile,
        slot: candidates.slot,
        kind: candidates.kind,
        milli: candidates.milli,
        tier: candidates.tier,
        use_start: candidates.use_start,
        use_gpu: candidates.use_gpu,
        use_profile: candidates.use_profile,
        use_slot: candidates.use_slot,
    }
}
