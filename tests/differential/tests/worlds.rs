//! Random worlds: partita places where kube-scheduler's filters let it, and nowhere else.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it looked at")]

use std::{env, ops::Range};

use partita_cluster::Oracle;
use partita_differential::{
    brain::{Brain, Fate},
    compare::{self, Mismatch},
    draw,
    features::Shares,
    shrink::shrink,
    world::World,
};

/// Worlds in which one pod is looked at, unless [`CASES`] says otherwise.
const WORLDS: u64 = 300;
/// Worlds to which pods come one after the other; each counts for so many of the former.
const HISTORIES_EVERY: u64 = 5;
/// How many mismatches are shown.
const SHOWN_MAX: usize = 40;
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

fn fail(mismatches: &[String]) {
    assert!(
        mismatches.is_empty(),
        "{} mismatches, of which the first are\n{}",
        mismatches.len(),
        mismatches[..mismatches.len().min(SHOWN_MAX)].join("\n\n")
    );
}

#[test]
fn one_pod_may_go_to_the_same_nodes() {
    let mut oracle = Oracle::start().unwrap();
    let (mut shares, mut mismatches) = (Shares::default(), Vec::new());
    for seed in seeds(1) {
        let world = draw::world(seed);
        let mut brain = Brain::new(world.clone()).unwrap();
        match compare::compare(&mut brain, &mut oracle) {
            Ok((feasible, _)) => shares.count(&world, &feasible, &mut oracle).unwrap(),
            Err(found) => {
                let small = if mismatches.len() < SHOWN_MAX {
                    serde_json::to_string(&shrink(&world, found.kind, &mut oracle)).unwrap()
                } else {
                    String::new()
                };
                mismatches.push(format!("seed {seed}: {found}\n  at its smallest: {small}"));
            }
        }
    }
    println!("{shares}");
    fail(&mismatches);
}

#[test]
fn pods_that_come_one_after_the_other_go_where_they_may() {
    let mut oracle = Oracle::start().unwrap();
    let (mut mismatches, mut placed, mut waiting) = (Vec::new(), 0, 0);
    for seed in seeds(HISTORIES_EVERY) {
        let (world, steps) = draw::history(seed);
        let mut brain = Brain::new(world).unwrap();
        for step in steps {
            if !brain.step(step).unwrap() {
                continue;
            }
            let before = brain.world.clone();
            match compare::compare(&mut brain, &mut oracle) {
                Ok((_, Fate::Bound(_))) => placed += 1,
                Ok((_, Fate::Waits(_))) => waiting += 1,
                Err(found) => {
                    mismatches.push(told_twice(seed, &before, &found, &mut oracle));
                    break;
                }
            }
        }
    }
    println!("{placed} pods placed, {waiting} found nothing");
    fail(&mismatches);
}

/// A mismatch in the course of a history. If a brain that is told all of the same world at once gets it wrong, too, the history has no part
/// in it.
fn told_twice(seed: u64, world: &World, found: &Mismatch, oracle: &mut Oracle) -> String {
    let again = match compare::mismatch(world, oracle) {
        Some(again) if again.kind == found.kind => "it is the same without the history",
        _ => "without the history there is none",
    };
    format!("seed {seed}: {found}\n  {again}: {}", serde_json::to_string(world).unwrap())
}
