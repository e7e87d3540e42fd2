//! Random clusters, and pods that wait in them.
//!
//! Words are few, so that what a pod asks and what a cluster has have much to do with each other. Each world is about some themes only:
//! if everything were asked of every pod, hardly any would fit anywhere and nothing would be learned of the single rules.

mod near;
mod nodes;
mod pods;
mod selectors;
mod storage;

use serde_json::{Value, json};

use crate::{dice::Dice, world::World};

/// The namespaces of every world.
const NAMESPACES: [&str; 3] = ["blue", "green", "red"];
const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";

/// What a world is about.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "any of them with any other")]
struct Themes {
    /// Selectors of nodes.
    labels: bool,
    /// Taints, tolerations, cordons.
    taints: bool,
    /// Ports of nodes.
    ports: bool,
    /// Amounts of resources.
    amounts: bool,
    /// Affinity to pods, and away from them.
    near: bool,
    /// Topology spread.
    spread: bool,
    /// Claims on volumes.
    volumes: bool,
}

impl Themes {
    /// One, and now and then others with it.
    fn draw(dice: &mut Dice) -> Self {
        let mut themes = Self::default();
        let Self { labels, taints, ports, amounts, near, spread, volumes } = &mut themes;
        let all = [labels, taints, ports, amounts, near, spread, volumes];
        // Those of many rules come more often.
        let first = dice.pick(&[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6]);
        for (row, theme) in all.into_iter().enumerate() {
            *theme = row == first || dice.chance(1, 12);
        }
        themes
    }
}

/// The world of a seed.
#[must_use]
pub fn world(seed: u64) -> World {
    let mut dice = Dice::new(seed);
    let themes = Themes::draw(&mut dice);
    let mut world = cluster(&mut dice, themes);
    world.pod = pods::waiting(&mut dice, themes, "asks", &mut world);
    world
}

/// What happens in a cluster.
#[derive(Clone, Debug)]
pub enum Step {
    /// A pod comes, which waits.
    Arrives(Value),
    /// A pod comes that somebody else gave a node.
    Runs(Value),
    /// One of the pods that have a node is gone.
    Leaves(usize),
    /// A pod that has a node is told to stop.
    Stops(usize),
    /// A pod that has a node gets other labels.
    Relabelled(usize, Value),
    /// A node is otherwise than before, new, or back.
    Node(Value),
    /// A node is gone.
    NodeGone(usize),
    /// A namespace gets other labels.
    Namespace(Value),
}

/// The cluster of a seed, and what happens in it: pods come one after the other, and other things happen between.
#[must_use]
pub fn history(seed: u64) -> (World, Vec<Step>) {
    let mut dice = Dice::new(seed);
    let themes = Themes::draw(&mut dice);
    let mut world = cluster(&mut dice, themes);
    let (mut pods, mut steps) = (Vec::new(), Vec::new());
    for row in 0..dice.number(3, 8) {
        pods.push(pods::waiting(&mut dice, themes, &format!("asks-{row}"), &mut world));
    }
    for pod in pods {
        while dice.chance(1, 2) {
            steps.push(change(&mut dice, themes, steps.len(), &mut world));
        }
        steps.push(Step::Arrives(pod));
    }
    (world, steps)
}

/// The cluster of a seed, and pods that come all at once.
#[must_use]
pub fn crowd(seed: u64) -> (World, Vec<Value>) {
    let mut dice = Dice::new(seed);
    let themes = Themes::draw(&mut dice);
    let mut world = cluster(&mut dice, themes);
    let count = dice.number(2, 6);
    let pods = (0..count).map(|row| pods::waiting(&mut dice, themes, &format!("asks-{row}"), &mut world)).collect();
    (world, pods)
}

fn change(dice: &mut Dice, themes: Themes, number: usize, world: &mut World) -> Step {
    let row = dice.number(0, 20) as usize;
    match dice.number(0, 10) {
        0..=2 => Step::Leaves(row),
        3 => Step::Stops(row),
        4 => Step::Relabelled(row, selectors::pod_labels(dice)),
        5 | 6 => Step::Node(nodes::node(dice, themes, &format!("n{}", row % 8))),
        7 => Step::NodeGone(row),
        8 | 9 => Step::Runs(pods::bound(dice, themes, &format!("comes-{number}"), world)),
        _ => {
            let mut all = namespaces(dice);
            Step::Namespace(all.swap_remove(row % NAMESPACES.len()))
        }
    }
}

fn cluster(dice: &mut Dice, themes: Themes) -> World {
    // What is counted is counted over several.
    let (least, most) = if themes.spread { (3, 6) } else { (1 + 2 * u32::from(themes.near), 8) };
    let mut nodes = (0..dice.number(least, most)).map(|row| nodes::node(dice, themes, &format!("n{row}"))).collect::<Vec<_>>();
    if themes.spread && dice.chance(1, 2) {
        nodes::close_some(dice, &mut nodes);
    }
    let mut world = World { nodes, namespaces: namespaces(dice), ..World::default() };
    if themes.volumes {
        storage::classes_and_volumes(dice, &mut world);
    }
    let (least, most) = if themes.spread { (10, 26) } else { (0, 12) };
    for row in 0..dice.number(least, most) {
        let pod = pods::bound(dice, themes, &format!("runs-{row}"), &mut world);
        world.pods.push(pod);
    }
    world
}

fn namespaces(dice: &mut Dice) -> Vec<Value> {
    let mut one = |name: &&str| {
        let mut labels = json!({"kubernetes.io/metadata.name": name});
        if dice.chance(2, 3) {
            labels["team"] = dice.pick(&["x", "y"]).into();
        }
        json!({"metadata": {"name": name, "labels": labels}})
    };
    NAMESPACES.iter().map(&mut one).collect()
}
