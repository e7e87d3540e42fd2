//! MIG placement under churn: partitions of an A100-80GB come and go, and one for which there is no room at once is turned away.
//!
//! The protocol is that of [`partita_sim::churn`]: 100 GPUs, as many slots asked for as there are, 30,000 requests of which the first
//! fifth is not counted. Every policy plays the same seeds. The published figures are means of such runs made elsewhere, with a rule of
//! their own for ties and other random numbers, so ours agree with them within the confidence interval at best. They also know no nodes,
//! only a pool of GPUs: that is one GPU a node. With several, `best-fit` and `spread` look for the fullest and the emptiest node first.

use anyhow::{Result, ensure};
use partita_core::{Config, Reuse, policy::Partitioner};
use partita_policy::{Host, Limits};
use partita_sim::{
    Contender, Tidy,
    churn::{Churn, ChurnMix, Figures, MIXES, Played},
    simulate,
    stats::Estimate,
};
use serde::Serialize;

use crate::parallel;

/// Who is compared.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// What it is called.
    pub name: &'static str,
    /// Our policy.
    pub policy: &'static str,
    /// Whether warm partitions go before free slots.
    pub reuse: Reuse,
    /// How many pods may move for one that does not fit.
    pub moves: u32,
    /// How often pods are moved to tidy up.
    pub tidy: Option<Tidy>,
}

/// A policy that counts warm partitions as free slots and moves nobody.
#[must_use]
pub const fn plain(name: &'static str) -> Rule {
    Rule { name, policy: name, reuse: Reuse::Free, moves: 0, tidy: None }
}

const OURS: Rule = plain("fragmentation");

/// Who is compared, in the order of the table. A pod runs for 100 s on average, and some 220 run at a time: to tidy up by five pods every ten
/// seconds moves each of them about once in four lives.
pub const RULES: [Rule; 7] = [
    plain("first-fit"),
    plain("best-fit"),
    OURS,
    Rule { name: "warm first", reuse: Reuse::First, ..OURS },
    Rule { name: "tidy", tidy: Some(Tidy { every_ms: 10_000, moves: 5 }), ..OURS },
    Rule { name: "2 moves", moves: 2, ..OURS },
    plain("spread"),
];
/// The fewest points of the slots that emptiest-first loses against keeping room, as published: 20 to 40.
pub const SPREAD_LOSES: f64 = 20.0;

/// Slots in use and requests accepted, percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Slots in use.
    pub in_use: f64,
    /// Requests accepted.
    pub accepted: f64,
}

const fn point(in_use: f64, accepted: f64) -> Point {
    Point { in_use, accepted }
}

/// What was published for one mix at load 1.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Published {
    /// Name of the mix.
    pub mix: &'static str,
    /// The first place in order.
    pub first_fit: Point,
    /// The tightest GPU.
    pub best_fit: Point,
    /// The place after which the least room is lost: what `fragmentation` must reach.
    pub least_lost_room: Point,
    /// Every instance may be moved at any time and for nothing: a bound.
    pub movable: Point,
}

impl Published {
    /// Half of the way from the room rule to the bound: what two moves for each blocked request must reach.
    fn half_way(&self) -> Point {
        let middle = |a: f64, b: f64| f64::midpoint(a, b);
        let (room, bound) = (self.least_lost_room, self.movable);
        point(middle(room.in_use, bound.in_use), middle(room.accepted, bound.accepted))
    }
}

const fn published(mix: &'static str, [first_fit, best_fit, least_lost_room, movable]: [Point; 4]) -> Published {
    Published { mix, first_fit, best_fit, least_lost_room, movable }
}

/// The published figures, in the order of [`MIXES`].
pub const PUBLISHED: [Published; 4] = [
    published("uniform", [point(86.6, 92.9), point(89.0, 94.5), point(90.9, 95.6), point(93.9, 95.7)]),
    published("skew-small", [point(89.2, 95.5), point(90.4, 96.1), point(92.0, 96.9), point(94.9, 96.3)]),
    published("skew-big", [point(85.8, 89.9), point(88.0, 91.6), point(90.6, 93.7), point(93.3, 94.4)]),
    published("bimodal", [point(85.2, 91.6), point(88.7, 94.0), point(89.9, 94.6), point(93.2, 95.7)]),
];

/// All runs of one policy on one mix.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// The mix.
    pub mix: &'static ChurnMix,
    /// Who places.
    pub rule: Rule,
    /// GPUs of the cluster.
    pub gpus: usize,
    /// GPUs of a node.
    pub node_gpus: usize,
    /// Requests of a run.
    pub requests: usize,
    /// Seeds, from 1.
    pub seeds: u64,
    /// As native code instead of WebAssembly.
    pub native: bool,
}

/// What came of a job.
#[derive(Clone, Debug)]
pub struct Done {
    /// The figures.
    pub figures: Figures,
    /// Decisions of all runs.
    pub decisions: usize,
    /// Their time, seconds.
    pub decisions_s: f64,
}

/// Every policy on every mix: 100 GPUs, `node_gpus` a node, `requests` a run, seeds from 1 to `seeds`.
#[must_use]
pub fn jobs(node_gpus: usize, requests: usize, seeds: u64) -> Vec<Job> {
    let of = |mix| RULES.map(|rule| Job { mix, rule, gpus: 100, node_gpus, requests, seeds, native: false });
    MIXES.iter().flat_map(of).collect()
}

/// Does all jobs on `threads` threads. `tell` is called after each run of a seed.
///
/// # Errors
/// The first error of a job.
pub fn run_all(host: &Host, jobs: &[Job], threads: usize, tell: &(dyn Fn() + Sync)) -> Result<Vec<Done>> {
    parallel::map(jobs, threads, &|job| run(host, job, tell), &|| ())
}

/// Does one job.
///
/// # Errors
/// If the policy cannot be loaded, or does not answer.
pub fn run(host: &Host, job: &Job, tell: &dyn Fn()) -> Result<Done> {
    let mut policy: Box<dyn Partitioner> = if job.native {
        Box::new(partita_policy::native(job.rule.policy, "")?)
    } else {
        Box::new(host.load_bundled(job.rule.policy, "", Limits::default())?.policy)
    };
    let (mut runs, mut decisions, mut decisions_s) = (Vec::new(), 0, 0.0);
    for seed in 1..=job.seeds {
        let planner = Config { reuse: job.rule.reuse, moves: job.rule.moves, ..Config::DEFAULT };
        let churn = Churn {
            gpus: job.gpus,
            node_gpus: job.node_gpus,
            requests: job.requests,
            planner,
            tidy: job.rule.tidy,
            ..Churn::benchmark(job.mix, seed)
        };
        let (cluster, workload) = churn.make()?;
        // No fallback: a policy that does not answer must not be carried by another.
        let mut contenders = [Contender { name: job.rule.name.to_owned(), chain: vec![policy.as_mut()] }];
        let outcome = simulate(&cluster, &workload, &churn.options(), &mut contenders, &mut |_, _| {})?;
        let run = &outcome.runs[0];
        ensure!(run.result.failures.is_empty(), "{job:?}, seed {seed}, was not answered by its policy: {:?}", run.result.failures);
        runs.push(Played::of(seed, &run.result));
        decisions += run.result.decisions;
        decisions_s += run.timing.decisions_s;
        tell();
    }
    Ok(Done { figures: Figures::of(job.mix.name, job.rule.name, runs), decisions, decisions_s })
}

/// A row of the table: ours, what it is measured against, and whether it is reached.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Ours.
    #[serde(flatten)]
    pub figures: Figures,
    /// Name of the published policy beside it; none for `spread`.
    pub peer: Option<&'static str>,
    /// Its figures.
    pub published: Option<Point>,
    /// Whether the goal is reached; none where the row has no goal.
    pub reached: Option<bool>,
    /// The same in words.
    pub verdict: String,
}

/// Puts the published figures beside ours.
#[must_use]
pub fn compare(done: &[Done]) -> Vec<Row> {
    let all: Vec<&Figures> = done.iter().map(|done| &done.figures).collect();
    all.iter().map(|figures| row(figures, &all)).collect()
}

fn row(figures: &Figures, all: &[&Figures]) -> Row {
    let published = PUBLISHED.iter().find(|published| published.mix == figures.mix);
    let (peer, point) = match figures.policy.as_str() {
        "first-fit" => (Some("first-fit"), published.map(|published| published.first_fit)),
        "best-fit" => (Some("best-fit"), published.map(|published| published.best_fit)),
        "fragmentation" => (Some("least lost room"), published.map(|published| published.least_lost_room)),
        "2 moves" => (Some("half of the way"), published.map(Published::half_way)),
        _ => (None, None),
    };
    let (reached, verdict) = match (figures.policy.as_str(), point) {
        ("fragmentation" | "2 moves", Some(point)) => {
            let short = [short(figures.in_use, point.in_use, "in use"), short(figures.accepted, point.accepted, "accepted")];
            let short: Vec<String> = short.into_iter().flatten().collect();
            (Some(short.is_empty()), if short.is_empty() { "reached".to_owned() } else { short.join(", ") })
        }
        ("spread", _) => {
            let packed = all.iter().find(|other| other.policy == "fragmentation" && other.mix == figures.mix);
            let loss = packed.map_or(0.0, |packed| packed.in_use.mean - figures.in_use.mean);
            (Some(loss >= SPREAD_LOSES), format!("loses {loss:.1} points against fragmentation"))
        }
        (_, Some(point)) => (None, format!("{:+.1} / {:+.1}", figures.in_use.mean - point.in_use, figures.accepted.mean - point.accepted)),
        _ => (None, String::new()),
    };
    Row { figures: figures.clone(), peer, published: point, reached, verdict }
}

/// By how much `ours` misses `goal`, if it does. Published figures have one place, so ours is rounded to one before they are compared.
fn short(ours: Estimate, goal: f64, what: &str) -> Option<String> {
    let tenths = |value: f64| (value * 10.0).round();
    let within = ours.margin.is_some_and(|margin| ours.mean + margin >= goal);
    let words = || format!("{what} {:.2} short{}", goal - ours.mean, if within { " (within ±)" } else { "" });
    (tenths(ours.mean) < tenths(goal)).then(words)
}

/// The titles of [`cells`].
pub const TITLES: [&str; 6] = ["MIX", "POLICY", "IN USE %", "ACCEPTED %", "PUBLISHED", "<AGAINST IT"];

/// The rows as texts; below each mix stands the bound.
#[must_use]
pub fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    let mut cells = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let published = match (row.published, row.peer) {
            (Some(point), Some(peer)) => format!("{peer} {:.1} / {:.1}", point.in_use, point.accepted),
            _ => "-".to_owned(),
        };
        let figures = &row.figures;
        let (mix, policy) = (figures.mix.clone(), figures.policy.clone());
        cells.push(vec![mix, policy, show(figures.in_use), show(figures.accepted), published, row.verdict.clone()]);
        let last = rows.get(index + 1).is_none_or(|next| next.figures.mix != figures.mix);
        if let Some(bound) = PUBLISHED.iter().find(|published| last && published.mix == figures.mix).map(|published| published.movable) {
            let published = format!("everything movable {:.1} / {:.1}", bound.in_use, bound.accepted);
            cells.push(vec![figures.mix.clone(), "-".into(), "-".into(), "-".into(), published, String::new()]);
        }
    }
    cells
}

fn show(estimate: Estimate) -> String {
    match estimate.margin {
        Some(margin) => format!("{:.2} ± {margin:.2}", estimate.mean),
        None => format!("{:.2}", estimate.mean),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(policy: &str, in_use: f64, accepted: f64) -> Done {
        let runs = vec![Played { seed: 1, in_use, accepted }];
        Done { figures: Figures::of("uniform", policy, runs), decisions: 1, decisions_s: 0.0 }
    }

    #[test]
    fn verdicts_follow_the_published_figures() {
        let verdicts = |done: &[Done]| compare(done).iter().map(|row| (row.reached, row.verdict.clone())).collect::<Vec<_>>();
        let good = verdicts(&[figures("first-fit", 86.7, 93.0), figures("fragmentation", 90.86, 95.6), figures("spread", 60.0, 80.0)]);
        assert_eq!(good[0], (None, "+0.1 / +0.1".to_owned()));
        assert_eq!(good[1], (Some(true), "reached".to_owned()), "90.86 is 90.9");
        assert_eq!(good[2], (Some(true), "loses 30.9 points against fragmentation".to_owned()));
        let bad = verdicts(&[figures("first-fit", 86.7, 93.0), figures("fragmentation", 90.84, 95.0), figures("spread", 71.0, 80.0)]);
        assert_eq!(bad[1], (Some(false), "in use 0.06 short, accepted 0.60 short".to_owned()));
        assert_eq!(bad[2].0, Some(false));
    }

    #[test]
    fn every_mix_has_its_published_figures() {
        assert_eq!(PUBLISHED.map(|published| published.mix), [0, 1, 2, 3].map(|row| MIXES[row].name));
    }
}
