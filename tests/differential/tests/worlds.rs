//! Random worlds: partita places where kube-scheduler's filters let it, and nowhere else.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it looked at")]

use std::{env, ops::Range};

use partita_cluster::Oracle;
use partita_differential::{
    brain::Brain,
    compare::{self, Mismatch},
    draw,
    features::Shares,
    shrink::shrink,
};

/// Worlds in which one pod is looked at, unless [`CASES`] says otherwise.
const WORLDS: u64 = 300;
/// Of worlds with several pods there are fewer by this.
const SEVERAL: u64 = 5;
/// In so many worlds every feature decides now and then.
const TELLING: u32 = 2_000;
/// How many mismatches are shown.
const SHOWN_MAX: usize = 5;
/// How many worlds to look at.
const CASES: &str = "PARTITA_DIFFERENTIAL_CASES";
/// The seed of the first; a mismatch names it.
const SEED: &str = "PARTITA_DIFFERENTIAL_SEED";

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

fn seeds(every: u64) -> Range<u64> {
    let first = number(SEED, 0);
    let count = number(CASES, if env::var_os(SEED).is_some() { 1 } else { WORLDS });
    first..first + count.div_ceil(every)
}

/// Mismatches, of which the first are shown.
#[derive(Default)]
struct Found(Vec<String>);

impl Found {
    /// Enters a mismatch, with the smallest world that shows it as well. There is none if only the history does.
    fn enter(&mut self, seed: u64, mismatch: &Mismatch, oracle: &mut Oracle) {
        let mut text = format!("seed {seed}: {mismatch}");
        if self.0.len() < SHOWN_MAX {
            let world = if let Some(again) = compare::mismatch(&mismatch.world, oracle) {
                text.push_str("\n  at its smallest");
                shrink(&mismatch.world, again.kind, oracle)
            } else {
                text.push_str("\n  only after what happened before, in");
                mismatch.world.clone()
            };
            text = format!("{text}: {}", serde_json::to_string(&world).unwrap());
        }
        self.0.push(text);
    }

    fn check(self) {
        let shown = self.0[..self.0.len().min(SHOWN_MAX)].join("\n\n");
        assert!(self.0.is_empty(), "{} mismatches, of which the first are\n{shown}", self.0.len());
    }
}

#[test]
fn one_pod_may_go_to_the_same_nodes() {
    let mut oracle = Oracle::start().unwrap();
    let (mut shares, mut found) = (Shares::default(), Found::default());
    for seed in seeds(1) {
        let world = draw::world(seed);
        match compare::compare(&mut Brain::new(world.clone()).unwrap(), &mut oracle) {
            Ok((feasible, _)) => shares.count(&world, &feasible, &mut oracle).unwrap(),
            Err(mismatch) => found.enter(seed, &mismatch, &mut oracle),
        }
    }
    println!("{shares}");
    found.check();
    let idle: Vec<&str> = shares.idle().collect();
    assert!(idle.is_empty() || shares.worlds() < TELLING, "worlds are drawn so that these never decide: {idle:?}");
}

#[test]
fn pods_that_come_one_after_the_other_go_where_they_may() {
    let mut oracle = Oracle::start().unwrap();
    let (mut found, mut placed, mut looks) = (Found::default(), 0, 0);
    for seed in seeds(SEVERAL) {
        let (world, steps) = draw::history(seed);
        let mut brain = Brain::new(world).unwrap();
        for step in steps {
            brain.step(step).unwrap();
            looks += brain.waiting().len();
            match compare::compare(&mut brain, &mut oracle) {
                Ok((_, count)) => placed += count,
                Err(mismatch) => {
                    found.enter(seed, &mismatch, &mut oracle);
                    break;
                }
            }
        }
    }
    println!("{placed} pods placed in {looks} looks");
    found.check();
}

#[test]
fn pods_that_come_together_go_where_they_may_with_those_before_them() {
    let mut oracle = Oracle::start().unwrap();
    let (mut found, mut placed, mut came) = (Found::default(), 0, 0);
    for seed in seeds(SEVERAL) {
        let (world, pods) = draw::crowd(seed);
        let mut brain = Brain::new(world).unwrap();
        came += pods.len();
        for pod in pods {
            brain.arrive(pod).unwrap();
        }
        match compare::compare(&mut brain, &mut oracle) {
            Ok((_, count)) => placed += count,
            Err(mismatch) => found.enter(seed, &mismatch, &mut oracle),
        }
    }
    println!("{placed} of {came} pods placed");
    found.check();
}
