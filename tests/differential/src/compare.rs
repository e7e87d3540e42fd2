//! Both sides are asked the same.

use std::{collections::BTreeMap, fmt};

use partita_cluster::Oracle;

use crate::{
    brain::{Brain, Fate},
    world::World,
};

/// Where the two sides do not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// How.
    pub kind: Kind,
    /// The nodes on which they do not, with what the filters say of them.
    pub nodes: BTreeMap<String, Vec<String>>,
    /// What the brain says of why the pod waits.
    pub told: String,
}

/// How the two sides do not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// We would place where a filter refuses.
    TooMuch,
    /// We would not place where every filter agrees.
    TooLittle,
    /// It was bound to a node that a filter refuses.
    Bound,
    /// It waits, though there is a node.
    Waits,
    /// One of the two cannot take the world in.
    Unreadable,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        for (node, reasons) in &self.nodes {
            write!(f, "\n  {node}: {}", if reasons.is_empty() { "feasible".into() } else { reasons.join(", ") })?;
        }
        if self.told.is_empty() { Ok(()) } else { write!(f, "\n  the pod was told: {}", self.told) }
    }
}

/// Asks both sides about the waiting pod of a brain's world and lets the brain place it. Returns where the filters let it through and what
/// became of it.
///
/// # Errors
/// The first [`Mismatch`].
pub fn compare(brain: &mut Brain, oracle: &mut Oracle) -> Result<(Vec<String>, Fate), Mismatch> {
    let unreadable = |told: String| Mismatch { kind: Kind::Unreadable, nodes: BTreeMap::new(), told };
    let case = brain.world.case().map_err(|error| unreadable(error.to_string()))?;
    let theirs = oracle.ask(&case).map_err(|error| unreadable(error.to_string()))?;
    let ours = brain.feasible();
    let fate = brain.place().map_err(|error| unreadable(error.to_string()))?;
    let told = if let Fate::Waits(told) = &fate { told.clone() } else { String::new() };
    let reasons = |node: &String| (node.clone(), theirs.reasons.get(node).cloned().unwrap_or_default());
    let mismatch = |kind, nodes: BTreeMap<String, Vec<String>>| Mismatch { kind, nodes, told };
    let too_much: BTreeMap<_, _> = ours.iter().filter(|node| !theirs.feasible.contains(node)).map(reasons).collect();
    let too_little: BTreeMap<_, _> = theirs.feasible.iter().filter(|node| !ours.contains(node)).map(reasons).collect();
    match &fate {
        _ if !too_much.is_empty() => Err(mismatch(Kind::TooMuch, too_much)),
        _ if !too_little.is_empty() => Err(mismatch(Kind::TooLittle, too_little)),
        Fate::Bound(node) if !theirs.feasible.contains(node) => Err(mismatch(Kind::Bound, [reasons(node)].into())),
        Fate::Waits(_) if !theirs.feasible.is_empty() => Err(mismatch(Kind::Waits, theirs.feasible.iter().map(reasons).collect())),
        _ => Ok((theirs.feasible, fate)),
    }
}

/// What the two sides do not agree on about a world, if anything.
#[must_use]
pub fn mismatch(world: &World, oracle: &mut Oracle) -> Option<Mismatch> {
    match Brain::new(world.clone()) {
        Ok(mut brain) => compare(&mut brain, oracle).err(),
        Err(error) => Some(Mismatch { kind: Kind::Unreadable, nodes: BTreeMap::new(), told: error.to_string() }),
    }
}
