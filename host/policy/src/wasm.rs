//! A policy that runs as a component, as the core sees it.

use std::fmt;

use partita_core::policy::{Candidates, Cause, Demands, Fault, Movable, Moves, Partitioner, Reads, Revision, View};

use crate::block::Sent;
use crate::breaker::Breaker;
use crate::describe::{Info, Starts, alone, behind, project};
use crate::instance::{Instance, Module};
use crate::limits::{Limits, REPEAT_ALWAYS, REPEAT_EARLY, REPEAT_LATER};
use crate::stats::Stats;

/// A revision: a module, its settings and its limits.
///
/// One instance is kept warm, which is sound because answers are pure, and a sample of the questions is put to a fresh instance as well to
/// see that they are. After any error the instance is discarded.
pub struct WasmPolicy {
    module: Module,
    settings: String,
    info: Info,
    reads: Reads,
    sent: Sent,
    revision: Revision,
    warm: Option<Instance>,
    breaker: Breaker,
    stats: Stats,
}

impl fmt::Debug for WasmPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmPolicy").field("name", &self.info.name).field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl WasmPolicy {
    pub(crate) fn new(module: Module, settings: String, info: Info, revision: Revision, warm: Instance) -> Self {
        let reads = info.reads();
        let sent = Sent::of(&info.reads);
        let stats = Stats { instances: 1, memory_max: warm.memory_peak(), ..Stats::default() };
        Self { module, settings, info, reads, sent, revision, warm: Some(warm), breaker: Breaker::new(), stats }
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

    /// The limits of the revision.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.module.limits
    }

    /// Sets the counters.
    pub(crate) fn restore(&mut self, stats: Stats) {
        self.stats = stats;
    }

    /// An instance in the state after `configure`.
    pub(crate) fn fresh(&mut self) -> Result<Instance, Fault> {
        self.stats.instances += 1;
        Instance::configured(&self.module, &self.settings)
    }

    /// Puts the question to `instance` and counts what it cost.
    fn ask(&mut self, instance: &mut Instance, question: &Asked<'_>) -> Result<Vec<i32>, Fault> {
        instance.expect(&question.view, question.demand as usize, self.sent)?;
        let answer = instance.score(&question.view, question.demand, &question.alone, &question.candidates, self.sent);
        let fuel = self.module.limits.score_fuel.saturating_sub(instance.fuel_left());
        self.stats.fuel += fuel;
        self.stats.fuel_max = self.stats.fuel_max.max(fuel);
        self.stats.memory_max = self.stats.memory_max.max(instance.memory_peak());
        answer
    }

    /// The answer of the warm instance, compared with that of a fresh one if this is one of the questions to repeat.
    fn answer(&mut self, question: &Asked<'_>) -> Result<Vec<i32>, Fault> {
        let mut instance = match self.warm.take() {
            Some(instance) => instance,
            None => self.fresh()?,
        };
        let answer = self.ask(&mut instance, question);
        if answer.as_ref().is_err_and(|fault| fault.cause != Cause::Declined && fault.cause != Cause::Invalid) {
            return answer;
        }
        if is_repeated(self.stats.calls) {
            self.stats.repeated += 1;
            let mut other = self.fresh()?;
            let again = self.ask(&mut other, question);
            same(&answer, &again)?;
            // The younger instance replaces the older one, so that no instance grows old unseen.
            instance = other;
        }
        self.warm = Some(instance);
        answer
    }

    /// Takes note of a fault, and gives it back.
    fn note(&mut self, fault: Fault) -> Fault {
        self.stats.faults.add(fault.cause);
        match fault.cause {
            Cause::Declined | Cause::Quarantined => {}
            Cause::Impure => {
                tracing::error!(policy = self.info.name, "switched off for good: {}", fault.detail);
                self.warm = None;
                self.stats.quarantined = Some(fault.detail.clone());
            }
            _ => {
                self.warm = None;
                self.failed();
            }
        }
        fault
    }

    /// Tells the breaker of a failure, and the operator if it opens.
    fn failed(&mut self) {
        if self.breaker.failure() {
            tracing::warn!(policy = self.info.name, decisions = self.breaker.left(), "failed again and again and is not asked for a while");
        }
    }

    /// Whether the policy takes part in the decision that begins; if not, why.
    fn admit(&mut self) -> Result<(), String> {
        if let Some(reason) = &self.stats.quarantined {
            return Err(format!("switched off for good: {reason}"));
        }
        self.breaker.admit().map_err(|left| format!("failed again and again; asked again after {left} more decisions"))
    }
}

/// A question as the policy sees it.
struct Asked<'a> {
    view: View<'a>,
    /// Row of the demand asked about, which is the last: those before it are the mix.
    demand: u32,
    /// The demand asked about, alone.
    alone: Demands<'a>,
    candidates: Candidates<'a>,
}

impl Partitioner for WasmPolicy {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn reads(&self) -> Reads {
        self.reads
    }

    fn ready(&mut self) -> Result<(), Fault> {
        let admitted = self.admit().map_err(|detail| self.note(Fault { cause: Cause::Quarantined, detail }));
        self.stats.resting = self.breaker.left();
        admitted
    }

    fn score(&mut self, view: &View<'_>, demand: u32, candidates: &Candidates<'_>, scores: &mut Vec<i32>) -> Result<(), Fault> {
        scores.clear();
        self.stats.calls += 1;
        let (mut starts, mut of_asked) = (Starts::default(), Starts::default());
        let (view, demand) = project(view, demand, self.reads, &mut starts);
        let asked = alone(&view.demands, demand as usize, &mut of_asked);
        let result = match self.answer(&Asked { view, demand, alone: asked, candidates: *candidates }) {
            Ok(answer) => {
                scores.extend(answer);
                self.stats.answered += 1;
                self.breaker.answered();
                Ok(())
            }
            Err(fault) => Err(self.note(fault)),
        };
        self.stats.resting = self.breaker.left();
        (self.stats.log_lines, self.stats.log_dropped) = self.module.log.totals();
        result
    }

    fn choose_moves(&mut self, view: &View<'_>, mix: u32, pods: &Movable<'_>, most: u32) -> Result<Moves, Fault> {
        self.stats.calls += 1;
        let mut starts = <[Vec<u32>; 2]>::default();
        let others = behind(&view.demands, mix as usize, &mut starts);
        let mut view = *view;
        if !self.reads.seed {
            view.seed = 0;
        }
        // Rare and large, so each is put to a fresh instance: nothing has to be proved of it.
        let proposed = self.fresh().and_then(|mut instance| {
            instance.expect(&view, mix as usize, self.sent)?;
            instance.moves(&view, &others, pods, most, self.sent)
        });
        match proposed {
            Ok(moves) => {
                self.stats.answered += 1;
                self.breaker.answered();
                Ok(moves)
            }
            Err(fault) => Err(self.note(fault)),
        }
    }

    fn refused(&mut self, fault: &Fault) {
        self.stats.refused += 1;
        self.stats.faults.add(fault.cause);
        self.warm = None;
        self.failed();
        self.stats.resting = self.breaker.left();
    }
}

/// Whether question number `call` (from 1) is put to a fresh instance too.
fn is_repeated(call: u64) -> bool {
    call > 1 && (call <= REPEAT_ALWAYS || if call <= REPEAT_EARLY { call.is_power_of_two() } else { call.is_multiple_of(REPEAT_LATER) })
}

/// Whether both instances gave the same answer. A limit that only one of them met says nothing about purity, since an instance that has
/// grown already is cheaper, so it is that fault and no other.
fn same(answer: &Result<Vec<i32>, Fault>, again: &Result<Vec<i32>, Fault>) -> Result<(), Fault> {
    let impure = |detail| Err(Fault { cause: Cause::Impure, detail });
    match (answer, again) {
        (_, Err(fault)) if matches!(fault.cause, Cause::Fuel | Cause::Deadline | Cause::Memory | Cause::Oversize) => Err(fault.clone()),
        (Ok(one), Ok(other)) => match one.iter().zip(other).position(|(one, other)| one != other) {
            None => Ok(()),
            Some(row) => impure(format!(
                "the same question twice gave {} and {} for candidate {row}; an answer may depend on the question and the settings only",
                one[row], other[row]
            )),
        },
        (Err(one), Err(other)) if one.cause == other.cause => Ok(()),
        (one, other) => impure(format!("the same question twice gave {} and {}", outcome(one), outcome(other))),
    }
}

fn outcome(answer: &Result<Vec<i32>, Fault>) -> String {
    match answer {
        Ok(_) => "an answer".into(),
        Err(fault) => format!("`{fault}`"),
    }
}
