//! Both sides are asked the same.

use std::{collections::BTreeMap, fmt};

use partita_cluster::Oracle;
use serde_json::Value;

use crate::{
    brain::{Brain, Decision},
    world::{World, full_name},
};

/// Where the two sides do not agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    /// How.
    pub kind: Kind,
    /// The pod.
    pub pod: String,
    /// The nodes on which they do not, with what the filters say of them.
    pub nodes: BTreeMap<String, Vec<String>>,
    /// What the brain says of why the pod waits.
    pub told: String,
    /// The world, with the pod as the one that waits.
    pub world: World,
}

/// How the two sides do not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// We would place where a filter refuses.
    TooMuch,
    /// We would not place where every filter agrees.
    TooLittle,
    /// It was placed on a node that a filter refuses.
    Placed,
    /// It waits, though there is a node.
    Waits,
    /// One of the two cannot take the world in.
    Unreadable,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.pod)?;
        for (node, reasons) in &self.nodes {
            write!(f, "\n  {node}: {}", if reasons.is_empty() { "feasible".into() } else { reasons.join(", ") })?;
        }
        if self.told.is_empty() { Ok(()) } else { write!(f, "\n  it was told: {}", self.told) }
    }
}

/// kube-scheduler's filters, and a world that they are asked about.
struct Theirs {
    world: World,
    feasible: Vec<String>,
    reasons: BTreeMap<String, Vec<String>>,
}

impl Theirs {
    fn ask(world: World, oracle: &mut Oracle) -> Result<Self, Box<Mismatch>> {
        let answer = world.case().map_err(|error| error.to_string()).and_then(|case| oracle.ask(&case).map_err(|error| error.to_string()));
        match answer {
            Ok(answer) => Ok(Self { world, feasible: answer.feasible, reasons: answer.reasons }),
            Err(error) => Err(unreadable(world, error)),
        }
    }

    /// None if there are no such nodes.
    fn mismatch<'n>(&self, kind: Kind, nodes: impl Iterator<Item = &'n String>, told: &str) -> Result<(), Box<Mismatch>> {
        let nodes: BTreeMap<_, _> = nodes.map(|node| (node.clone(), self.reasons.get(node).cloned().unwrap_or_default())).collect();
        if nodes.is_empty() {
            return Ok(());
        }
        Err(Box::new(Mismatch { kind, pod: full_name(&self.world.pod), nodes, told: told.to_owned(), world: self.world.clone() }))
    }
}

fn unreadable(world: World, told: String) -> Box<Mismatch> {
    Box::new(Mismatch { kind: Kind::Unreadable, pod: full_name(&world.pod), nodes: BTreeMap::new(), told, world })
}

fn with(world: &World, pod: &Value) -> World {
    World { pod: pod.clone(), ..world.clone() }
}

/// Asks both sides where the waiting pods of a brain may go, then lets the brain place them, and asks of each placement and of all who still
/// wait whether the filters agree. Returns where the first of them might have gone, and how many were placed.
///
/// # Errors
/// The first [`Mismatch`].
pub fn compare(brain: &mut Brain, oracle: &mut Oracle) -> Result<(Vec<String>, usize), Box<Mismatch>> {
    let mut first = None;
    brain.look();
    for pod in brain.waiting().values() {
        let theirs = Theirs::ask(with(&brain.world, pod), oracle)?;
        let ours = brain.feasible(&full_name(pod));
        let told = brain.told(&full_name(pod));
        theirs.mismatch(Kind::TooMuch, ours.iter().filter(|node| !theirs.feasible.contains(node)), told)?;
        theirs.mismatch(Kind::TooLittle, theirs.feasible.iter().filter(|node| !ours.contains(node)), told)?;
        first.get_or_insert(theirs.feasible);
    }
    let decisions = brain.place().map_err(|error| unreadable(brain.world.clone(), error.to_string()))?;
    for Decision { world, node } in &decisions {
        let theirs = Theirs::ask(world.clone(), oracle)?;
        theirs.mismatch(Kind::Placed, [node].into_iter().filter(|node| !theirs.feasible.contains(node)), "")?;
    }
    for (name, pod) in brain.waiting() {
        let theirs = Theirs::ask(with(&brain.world, pod), oracle)?;
        theirs.mismatch(Kind::Waits, theirs.feasible.iter(), brain.told(name))?;
    }
    Ok((first.unwrap_or_default(), decisions.len()))
}

/// What the two sides do not agree on about a world, if anything.
#[must_use]
pub fn mismatch(world: &World, oracle: &mut Oracle) -> Option<Box<Mismatch>> {
    match Brain::new(world.clone()) {
        Ok(mut brain) => compare(&mut brain, oracle).err(),
        Err(error) => Some(unreadable(world.clone(), error.to_string())),
    }
}
