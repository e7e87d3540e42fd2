//! What the policy host costs, and what it stops.

use std::time::Instant;

use anyhow::{Context, Result};
use partita_core::policy::{Candidates, Cause, NONE, Nodes, Partitioner, View};
use partita_hostile::{COMPONENT, bomb};
use partita_policy::{CompileLimits, Host, HostConfig, Limits, bundled};
use serde::Serialize;

/// The most microseconds that passing the columns of 8,000 GPUs may take, a guard against an interface that passes rows.
pub const LOWER_US_MAX: f64 = 25.0;

/// All figures.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// One row a bundled policy.
    pub costs: Vec<Cost>,
    /// Microseconds to copy as many bytes as the columns of 8,000 GPUs have, in this process.
    pub copy_us: f64,
    /// One row an attack.
    pub attacks: Vec<Attack>,
}

/// What one bundled policy costs.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// Its name.
    pub policy: String,
    /// Microseconds to make an instance.
    pub instantiate_us: f64,
    /// Microseconds of a question over 100 GPUs.
    pub small_us: f64,
    /// Its fuel.
    pub small_fuel: u64,
    /// Microseconds of a question over 8,000 GPUs.
    pub large_us: f64,
    /// Its fuel.
    pub large_fuel: u64,
    /// That fuel as a share of the budget.
    pub large_share: f64,
    /// Microseconds of the same question without candidates: what passing the columns costs.
    pub lower_us: f64,
}

/// How an attack ended.
#[derive(Debug, Serialize)]
pub struct Attack {
    /// What it was.
    pub attack: String,
    /// Whether the host ended it as it should.
    pub held: bool,
    /// Milliseconds until then.
    pub ms: f64,
    /// What the host said.
    pub ending: String,
}

/// Attacks of a loaded component and the cause that must be counted.
const ATTACKS: [(&str, Cause); 8] = [
    ("loop", Cause::Fuel),
    ("recurse", Cause::Trap),
    ("grow", Cause::Memory),
    ("trap", Cause::Trap),
    ("huge-reply", Cause::Oversize),
    ("short", Cause::Invalid),
    ("long", Cause::Invalid),
    ("out-of-range", Cause::Invalid),
];

/// Measures everything.
///
/// # Errors
/// If the host does not start, or an honest component does not answer.
pub fn measure() -> Result<Figures> {
    let host = Host::new(HostConfig::new()?)?;
    let costs = bundled::all().iter().map(|policy| cost(&host, policy.name)).collect::<Result<_>>()?;
    let mut attacks = ATTACKS.iter().map(|&(name, cause)| attack(&host, name, name, cause)).collect::<Result<Vec<_>>>()?;
    // The same loop with fuel for minutes: the clock has to stop it.
    let ceiling = Limits { score_fuel: u64::MAX / 2, ..Limits::default() };
    let patient = Host::new(HostConfig { ceiling, ..HostConfig::new()? })?;
    attacks.push(attack(&patient, "loop with endless fuel", "loop", Cause::Deadline)?);
    attacks.push(refusal("a function over the caps", &bomb::large(), CompileLimits::default(), "static")?);
    attacks.push(refusal(
        "many functions, 1 s of cpu",
        &bomb::many(),
        CompileLimits { cpu_seconds: 1, ..CompileLimits::default() },
        "compile",
    )?);
    let small = CompileLimits { memory_bytes: 64 << 20, ..CompileLimits::default() };
    attacks.push(refusal("many functions, 64 MiB", &bomb::many(), small, "compile")?);
    attacks.push(refusal("many functions, default limits", &bomb::many(), CompileLimits::default(), "compile")?);
    attacks.push(refusal("garbage", &vec![0x5a; 100_000], CompileLimits::default(), "static")?);
    Ok(Figures { costs, copy_us: copy(), attacks })
}

fn cost(host: &Host, name: &str) -> Result<Cost> {
    let mut policy = host.load_bundled(name, "", Limits::default())?.policy;
    let bench = policy.bench()?;
    let (small, large) = (&bench.rows[0], bench.rows.last().context("a benchmark has rows")?);
    Ok(Cost {
        policy: name.to_owned(),
        instantiate_us: bench.instantiate_us,
        small_us: small.score_us,
        small_fuel: small.fuel,
        large_us: large.score_us,
        large_fuel: large.fuel,
        large_share: large.fuel_share,
        lower_us: large.lower_us,
    })
}

/// Copies five columns of 8,000 GPUs and eight of 1,000 nodes; the median of 101.
fn copy() -> f64 {
    let source: Vec<u32> = (0..48_000).collect();
    let mut times: Vec<f64> = (0..101)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(std::hint::black_box(&source).clone());
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[50]
}

/// Lets the hostile component do `what` and sees whether the host counts it as `cause`.
fn attack(host: &Host, label: &str, what: &str, cause: Cause) -> Result<Attack> {
    let mut policy = host.load("attacker", COMPONENT, &partita_hostile::settings(what), host.ceiling())?.policy;
    let nodes = Nodes {
        cpu_free: &[8000; 2],
        cpu_capacity: &[8000; 2],
        memory_free: &[8000; 2],
        memory_capacity: &[8000; 2],
        gpu_pods: &[0; 2],
        like_pods: &[0; 2],
        gpu_start: &[0; 3],
    };
    let view = View { nodes, ..View::default() };
    let candidates = Candidates { node: &[0, 1], gpu: &[NONE; 2], profile: &[NONE; 2], slot: &[NONE; 2], ..Candidates::default() };
    let started = Instant::now();
    let ending = policy.ready().and_then(|()| policy.score(&view, 0, &candidates, &mut Vec::new()));
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let held = ending.as_ref().is_err_and(|fault| fault.cause == cause);
    Ok(Attack { attack: label.to_owned(), held, ms, ending: ending.map_or_else(|fault| fault.to_string(), |()| "an answer".into()) })
}

/// Offers a component that must be refused at `stage`.
fn refusal(label: &str, component: &[u8], limits: CompileLimits, stage: &str) -> Result<Attack> {
    let mut config = HostConfig::new()?;
    config.compiler.limits = limits;
    let host = Host::new(config)?;
    let started = Instant::now();
    let ending = host.load("bomb", component, "", Limits::default());
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let held = ending.as_ref().is_err_and(|error| error.stage.to_string() == stage);
    let ending = ending.map_or_else(|error| partita_policy::chain(&error), |_| "loaded".into());
    Ok(Attack { attack: label.to_owned(), held, ms, ending })
}
