//! One instance of a component: its store, its limits, its calls, and what went wrong in plain words.

use std::fmt::Write as _;

use partita_core::policy::{self, Cause, Fault};
use wasmtime::component::{InstancePre, Linker, WasmStr};
use wasmtime::{Engine, ResourceLimiter, Store, StoreContextMut, Trap, WasmBacktrace};

use crate::bindings::{self, Issue, Level, Partitioner, PartitionerIndices, Refusal};
use crate::block::{Sent, pack, pack_moves, pack_outlook};
use crate::describe::Info;
use crate::engine;
use crate::limits::{DETAIL_CHARS, FRAMES, HANDLES, LOG_FUEL, Limits, STORE_ITEMS, TABLE_ELEMENTS};
use crate::log::Log;
use crate::text::clean;

/// What wasmtime says when the host was handed more than the hostcall fuel allows; the type of that error is not public.
const OVERSIZE: &str = "fuel allocated for hostcalls has been exhausted";

/// Everything that instances of one revision share.
#[derive(Clone)]
pub(crate) struct Module {
    pub(crate) pre: InstancePre<State>,
    pub(crate) exports: PartitionerIndices,
    pub(crate) limits: Limits,
    pub(crate) log: Log,
}

/// The host's side of a store.
pub(crate) struct State {
    log: Log,
    memory: Memory,
}

/// A linker that offers what a policy may import.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    linker.instance("partita:policy/types@0.1.0")?;
    linker.instance("partita:policy/host@0.1.0")?.func_wrap("log", log)?;
    Ok(linker)
}

/// The import `log`. It costs fuel, because the host's work would otherwise be free to the policy.
fn log(mut store: StoreContextMut<'_, State>, (level, message): (Level, WasmStr)) -> wasmtime::Result<()> {
    let message = message.to_str(&store)?;
    let price = LOG_FUEL + message.len() as u64;
    store.data().log.write(level, &message);
    drop(message);
    let left = store.get_fuel()?.checked_sub(price);
    store.set_fuel(left.unwrap_or(0))?;
    if left.is_none() { Err(Trap::OutOfFuel.into()) } else { Ok(()) }
}

/// Bounds all linear memories and tables of a store together; wasmtime's own limits bound each memory apart. Growth beyond them traps,
/// where a guest that was told of the failure would abort with less to say.
struct Memory {
    used: usize,
    peak: usize,
    max: usize,
    elements: usize,
}

/// Growth that was refused.
#[derive(Debug, thiserror::Error)]
#[error("it wanted {wanted} {what} and may have {max}")]
struct OverLimit {
    what: &'static str,
    wanted: usize,
    max: usize,
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.used.saturating_add(desired.saturating_sub(current));
        if wanted > self.max {
            return Err(OverLimit { what: "bytes of memory", wanted, max: self.max }.into());
        }
        self.used = wanted;
        self.peak = self.peak.max(wanted);
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.elements.saturating_add(desired.saturating_sub(current));
        if wanted > TABLE_ELEMENTS {
            return Err(OverLimit { what: "table elements", wanted, max: TABLE_ELEMENTS }.into());
        }
        self.elements = wanted;
        Ok(true)
    }

    fn instances(&self) -> usize {
        STORE_ITEMS
    }

    fn tables(&self) -> usize {
        STORE_ITEMS
    }

    fn memories(&self) -> usize {
        STORE_ITEMS
    }
}

/// Why there is no instance.
pub(crate) enum StartError {
    /// The component failed.
    Fault(Fault),
    /// A type of the component is not that of the world.
    Mismatch(wasmtime::Error),
}

/// A component that runs.
pub(crate) struct Instance {
    store: Store<State>,
    world: Partitioner,
    limits: Limits,
    /// The name of the outlook that it was told last.
    outlook: Option<u64>,
    /// The last question, kept for its memory.
    block: Vec<u32>,
}

impl Instance {
    /// Instantiates `module`.
    pub(crate) fn start(module: &Module) -> Result<Self, StartError> {
        let limits = module.limits;
        let memory = Memory { used: 0, peak: 0, max: limits.memory_bytes, elements: 0 };
        let mut store = Store::new(module.pre.engine(), State { log: module.log.clone(), memory });
        store.limiter(|state| &mut state.memory);
        store.set_max_component_handles(HANDLES);
        let budget = Budget::of(limits.setup_fuel, limits);
        prepare(&mut store, budget);
        let instance = module.pre.instantiate(&mut store).map_err(|error| StartError::Fault(start_fault(&error, &module.log, budget)))?;
        // The imports fitted before; what is left are the types of the exports.
        let world = module.exports.load(&mut store, &instance).map_err(StartError::Mismatch)?;
        Ok(Self { store, world, limits, outlook: None, block: Vec::new() })
    }

    /// An instance of `module` with `settings` applied, ready for questions.
    pub(crate) fn configured(module: &Module, settings: &str) -> Result<Self, Fault> {
        let mut instance = Self::start(module).map_err(|error| match error {
            StartError::Fault(fault) => fault,
            StartError::Mismatch(error) => fault(&error, &module.log, Budget::of(module.limits.setup_fuel, module.limits)),
        })?;
        match instance.configure(settings)? {
            Ok(()) => Ok(instance),
            Err(issues) => {
                Err(Fault { cause: Cause::Impure, detail: format!("it refused settings that it had accepted: {}", list(&issues)) })
            }
        }
    }

    /// What the policy says of itself, not yet checked.
    pub(crate) fn describe(&mut self) -> Result<Info, Fault> {
        let bindings::Info { name, version, settings_schema, reads } =
            self.call(self.limits.setup_fuel, 0, |world, store| world.partita_policy_lifecycle().call_describe(store))?;
        Ok(Info { name, version, settings_schema, reads })
    }

    /// What the policy finds wrong with `settings`.
    pub(crate) fn validate(&mut self, settings: &str) -> Result<Result<(), Vec<Issue>>, Fault> {
        self.call(self.limits.setup_fuel, 0, |world, store| world.partita_policy_lifecycle().call_validate_settings(store, settings))
    }

    /// Applies `settings`.
    pub(crate) fn configure(&mut self, settings: &str) -> Result<Result<(), Vec<Issue>>, Fault> {
        self.call(self.limits.setup_fuel, 0, |world, store| world.partita_policy_lifecycle().call_configure(store, settings))
    }

    /// Tells the policy of the outlook, if it was told of another one last. Of the demands the first `mix` rows are part of it.
    pub(crate) fn expect(&mut self, view: &policy::View<'_>, mix: usize, sent: Sent) -> Result<(), Fault> {
        if self.outlook == Some(view.outlook) || !sent.outlook(mix > 0) {
            return Ok(());
        }
        let mut block = std::mem::take(&mut self.block);
        pack_outlook(view, mix, sent, &mut block);
        self.call(self.limits.score_fuel, 0, |world, store| world.partita_policy_partitioning().call_expect(store, &block))?;
        self.block = block;
        self.outlook = Some(view.outlook);
        Ok(())
    }

    /// The policy's scores, checked: one a candidate, each within the bound. `asked` is row `demand` of the demands, alone.
    pub(crate) fn score(
        &mut self,
        view: &policy::View<'_>,
        demand: u32,
        asked: &policy::Demands<'_>,
        candidates: &policy::Candidates<'_>,
        sent: Sent,
    ) -> Result<Vec<i32>, Fault> {
        let count = candidates.node.len();
        let mut block = std::mem::take(&mut self.block);
        pack(view, asked, candidates, sent, &mut block);
        let scores = self.call(self.limits.score_fuel, count * size_of::<i32>(), |world, store| {
            world.partita_policy_partitioning().call_score(store, &block, demand)
        })?;
        self.block = block;
        match scores {
            Ok(scores) => check_scores(&scores, count).map(|()| scores),
            Err(Refusal::Declined(reason)) => Err(Fault { cause: Cause::Declined, detail: clean(&reason, DETAIL_CHARS) }),
            Err(Refusal::Unsupported(reason)) => {
                Err(Fault { cause: Cause::Declined, detail: clean(&format!("unsupported question: {reason}"), DETAIL_CHARS) })
            }
        }
    }

    /// The moves that the policy proposes, not yet checked. `others` are the demands behind the mix.
    pub(crate) fn moves(
        &mut self,
        view: &policy::View<'_>,
        others: &policy::Demands<'_>,
        pods: &policy::Movable<'_>,
        most: u32,
        sent: Sent,
    ) -> Result<policy::Moves, Fault> {
        let mut block = std::mem::take(&mut self.block);
        pack_moves(view, others, pods, sent, &mut block);
        let budget = bindings::exports::partita::policy::partitioning::Budget { changes: most };
        let reply = 2 * most as usize * size_of::<u32>();
        let moves = self.call(self.limits.setup_fuel, reply, |world, store| {
            world.partita_policy_partitioning().call_choose_moves(store, &block, budget)
        })?;
        self.block = block;
        match moves {
            Ok(moves) => Ok(policy::Moves { pod: moves.pod, node: moves.node }),
            Err(Refusal::Declined(reason) | Refusal::Unsupported(reason)) => {
                Err(Fault { cause: Cause::Declined, detail: clean(&reason, DETAIL_CHARS) })
            }
        }
    }

    /// Fuel that is left of the last call.
    pub(crate) fn fuel_left(&self) -> u64 {
        self.store.get_fuel().unwrap_or(0)
    }

    /// Most bytes of linear memory so far.
    pub(crate) fn memory_peak(&self) -> usize {
        self.store.data().memory.peak
    }

    /// One call under `fuel` whose answer may be larger than the usual reply by `reply` bytes.
    fn call<R>(
        &mut self,
        fuel: u64,
        reply: usize,
        run: impl FnOnce(&Partitioner, &mut Store<State>) -> wasmtime::Result<R>,
    ) -> Result<R, Fault> {
        let mut budget = Budget::of(fuel, self.limits);
        budget.reply = budget.reply.saturating_add(reply);
        prepare(&mut self.store, budget);
        run(&self.world, &mut self.store).map_err(|error| fault(&error, &self.store.data().log, budget))
    }
}

/// What one call may use.
#[derive(Clone, Copy)]
struct Budget {
    fuel: u64,
    /// Bytes handed to the host at once.
    reply: usize,
    wall_ms: u64,
}

impl Budget {
    fn of(fuel: u64, limits: Limits) -> Self {
        Self { fuel, reply: limits.reply_bytes, wall_ms: limits.wall_ms }
    }
}

/// Sets the budget of the next call.
fn prepare(store: &mut Store<State>, budget: Budget) {
    // Fails only in an engine without fuel, and this one has it; a store without fuel would refuse to run.
    let _ = store.set_fuel(budget.fuel);
    store.set_epoch_deadline(engine::ticks(budget.wall_ms));
    store.set_hostcall_fuel(budget.reply);
    store.data().log.begin();
}

/// Refuses scores of the wrong number or size.
pub(crate) fn check_scores(scores: &[i32], count: usize) -> Result<(), Fault> {
    let invalid = |detail| Err(Fault { cause: Cause::Invalid, detail });
    if scores.len() != count {
        return invalid(format!("{} scores for {count} candidates", scores.len()));
    }
    match scores.iter().position(|score| score.unsigned_abs() > policy::SCORE_MAX.unsigned_abs()) {
        None => Ok(()),
        Some(row) => invalid(format!("score {} of candidate {row} is not within ±{}", scores[row], policy::SCORE_MAX)),
    }
}

/// `issues` as one line.
pub(crate) fn list(issues: &[Issue]) -> String {
    let lines: Vec<String> =
        issues.iter().map(|issue| format!("{}: {}", if issue.path.is_empty() { "settings" } else { &issue.path }, issue.message)).collect();
    clean(&lines.join("; "), DETAIL_CHARS)
}

/// What an `error` of instantiation means. Without a trap no code of the policy ran, and there was no room for what the instance has: more
/// memories than a store may hold, or no address space left in this process.
fn start_fault(error: &wasmtime::Error, log: &Log, budget: Budget) -> Fault {
    if error.is::<Trap>() || error.is::<OverLimit>() {
        return fault(error, log, budget);
    }
    Fault { cause: Cause::Memory, detail: clean(&format!("there is no room for an instance: {error:#}"), DETAIL_CHARS) }
}

/// What `error` means: its cause, and a detail that names the trap, the functions and the policy's last words.
fn fault(error: &wasmtime::Error, log: &Log, budget: Budget) -> Fault {
    let root = error.root_cause().to_string();
    let cause = match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Cause::Fuel,
        Some(Trap::Interrupt) => Cause::Deadline,
        Some(Trap::AllocationTooLarge) => Cause::Memory,
        None if error.is::<OverLimit>() => Cause::Memory,
        None if root.contains(OVERSIZE) => Cause::Oversize,
        Some(_) | None => Cause::Trap,
    };
    let mut detail = match cause {
        Cause::Fuel => format!("it used up its fuel of {}", budget.fuel),
        Cause::Deadline => format!("it ran for more than {} ms", budget.wall_ms),
        Cause::Oversize => format!("it handed over more than {} bytes at once", budget.reply),
        _ => root.trim_start_matches("wasm trap: ").to_owned(),
    };
    let frames = error.downcast_ref::<WasmBacktrace>().map(frames).unwrap_or_default();
    // Writing to a string cannot fail.
    if !frames.is_empty() {
        let _ = write!(detail, "; in {}", frames.join(" < "));
    }
    if let Some(last) = log.last() {
        let _ = write!(detail, "; last log line: {last}");
    }
    Fault { cause, detail: clean(&detail, DETAIL_CHARS) }
}

/// The innermost functions of the policy, without those that only carry a panic.
fn frames(backtrace: &WasmBacktrace) -> Vec<String> {
    let names = backtrace.frames().iter().filter_map(|frame| frame.func_name());
    let names = names.map(|name| format!("{:#}", rustc_demangle::demangle(name)));
    names.filter(|name| !is_panic_machinery(name)).take(FRAMES).collect()
}

fn is_panic_machinery(name: &str) -> bool {
    name.contains("panicking::") || name.contains("__rust") || name.contains("rust_panic") || name.contains("__rustc") || name == "abort"
}
