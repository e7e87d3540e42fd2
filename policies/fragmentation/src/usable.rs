//! The default rule: keep capacity usable.
//!
//! What a node can still serve is limited by its free GPUs and by the cpu that pods on them would need: with R the milli-GPU that the
//! GPU pods of the expected mix ask per milli-core, its usable capacity is U = min(free milli-GPU, R times free cpu). A place costs
//!
//! - what the pod takes from U,
//! - plus a tenth of what it makes useless on the GPU it takes: W(left after) - W(left before), where W(r) is the mean rest of a GPU with
//!   r free that is filled with copies of one kind of demand,
//! - times the squared price of the node.
//!
//! The cheapest place wins. Very many cost exactly what the pod takes, and the host's order decides among them: first-fit, which is what
//! keeps whole nodes together. Hence nothing is rounded before the last step, and that step keeps ties. A pod without GPU goes to nodes
//! without GPU first; elsewhere it adds a tenth of R times the cpu that it leaves free, unpriced, so that nodes that are nearly full of
//! cpu get the rest.
//!
//! The price says how much the mix wants nodes of a shape: the demand that falls on their GPUs relative to the average GPU, if every kind
//! of demand spreads evenly over the GPUs that serve it. A kind that asks several GPUs falls only on nodes that could hold it when empty.
//! Prices lie between 1/16 and 16. The square is there because unconstrained kinds can go elsewhere, so that the even spread understates
//! scarcity.
//!
//! The constants (the tenths and the square) were chosen on the traces of Weng et al. (USENIX ATC'23) at 100 % arrived: on their five
//! main traces the rule allocates 95.5 % of the GPUs on average, where the better of first-fit and FGD on each comes to 94.7 %.
//!
//! Numbers are fixed-point integers; the constants say how many bits follow the point. A score has both those of milli-GPU and those of a
//! squared price and stays below 2^58 for nodes of 16 GPUs.

use partita_sdk::{Demand, NONE, Question, View, compress};

use crate::taking;

/// Bits after the point of milli-GPU.
const MILLI: u32 = 16;
/// 16 GPUs per milli-core, which keeps every product within 64 bits.
const RATE_MAX: u32 = 1 << 30;
/// Bits after the point of a price, and half of those of its square.
const PRICE: u32 = 8;
/// A price of 1/16 and of 16.
const PRICES: (u128, u128) = (1 << (PRICE - 4), 1 << (PRICE + 4));
/// The weight of U against the terms that count a tenth.
const TENTHS: i64 = 10;
/// The score of a node without GPU, for a pod without GPU, before the free cpu is taken off: it has nothing to lose, so it comes before
/// all nodes with GPUs, whose scores are at most 0.
const WITHOUT_GPU: u32 = 1 << 20;
/// A GPU, milli-GPU.
const WHOLE: usize = 1000;

/// What tells nodes of one shape from others: model, GPUs of that model, cpu capacity.
type Shape = (u32, u32, u32);

/// What the mix says of the value of capacity.
#[derive(Debug)]
pub(crate) struct Value {
    /// Milli-GPU asked per milli-core.
    rate: i64,
    /// The same for cpu that a pod without GPU leaves free; 0 if the mix asks no cpu, since all cpu is then alike.
    spare: i64,
    /// Squared price of every shape, by shape.
    prices: Vec<(Shape, i64)>,
    /// The shape whose price was asked last.
    last: (Shape, i64),
    /// Kinds that ask shares or whole GPUs, as (milli, weight).
    shares: Vec<(u64, u64)>,
    /// Sum of their weights.
    weight: u64,
    /// W by what is free, milli-GPU, filled as it is asked; `u32::MAX` where it was not yet.
    rest: Vec<u32>,
}

/// What one pod asks of GPUs in total, milli-GPU; a MIG partition asks its part of the slots.
fn asked_milli(view: &View<'_>, demand: &Demand<'_>) -> u64 {
    let partition = demand.profiles().first().map_or(0, |&profile| {
        let profile = view.profile(profile as usize);
        profile.size() * WHOLE as u32 / view.models.slots[profile.model() as usize].max(1)
    });
    u64::from(if demand.is_mig() { partition } else { demand.total_milli() })
}

/// Whether GPUs of the model serve the demand.
fn serves(view: &View<'_>, demand: &Demand<'_>, model: u32) -> bool {
    if demand.is_mig() {
        demand.profiles().iter().any(|&profile| view.profile(profile as usize).model() == model)
    } else {
        demand.accepts(model)
    }
}

impl Value {
    pub(crate) fn of(view: &View<'_>) -> Self {
        let kinds: Vec<(Demand<'_>, u128)> = view
            .mix()
            .map(|demand| (demand, u128::from(demand.weight()) * u128::from(asked_milli(view, &demand))))
            .filter(|(_, milli)| *milli > 0)
            .collect();
        let milli: u128 = kinds.iter().map(|(_, milli)| milli).sum();
        let cpu: u128 = kinds.iter().map(|(demand, _)| u128::from(demand.weight()) * u128::from(demand.cpu())).sum();
        let shares: Vec<(u64, u64)> = kinds
            .iter()
            .filter(|(demand, _)| !demand.is_mig())
            .map(|(demand, _)| (u64::from(demand.milli()), u64::from(demand.weight())))
            .collect();
        let rate = (milli << MILLI).checked_div(cpu).map(|rate| rate.min(RATE_MAX.into()) as i64);
        Self {
            // A mix that asks no cpu leaves GPUs the only limit.
            rate: rate.unwrap_or(RATE_MAX.into()),
            spare: rate.unwrap_or(0),
            prices: prices(view, &kinds, milli),
            last: ((NONE, 0, 0), 0),
            weight: shares.iter().map(|(_, weight)| weight).sum(),
            shares,
            rest: vec![u32::MAX; WHOLE + 1],
        }
    }

    /// Usable capacity with that much free, milli-cores and milli-GPU.
    fn usable(&self, cpu: u32, milli: u32) -> i64 {
        (i64::from(milli) << MILLI).min(i64::from(cpu) * self.rate)
    }

    /// The squared price of a shape: that of the average GPU for one that the view does not tell.
    fn price(&mut self, shape: Shape) -> i64 {
        // Neighbours in the host's order are mostly of one shape.
        if self.last.0 != shape {
            let found = self.prices.binary_search_by_key(&shape, |price| price.0);
            self.last = (shape, found.map_or(1 << (2 * PRICE), |found| self.prices[found].1));
        }
        self.last.1
    }

    /// W of a GPU with that much free.
    #[inline]
    fn rest(&mut self, free: u32) -> i64 {
        let free = (free as usize).min(WHOLE);
        match self.rest[free] {
            u32::MAX => self.fill(free),
            rest => i64::from(rest),
        }
    }

    #[cold]
    fn fill(&mut self, free: usize) -> i64 {
        let rest: u64 = self.shares.iter().map(|&(milli, weight)| weight * (free as u64 % milli)).sum();
        let mean = (u128::from(rest) << MILLI).checked_div(u128::from(self.weight)).unwrap_or(0) as u32;
        self.rest[free] = mean;
        i64::from(mean)
    }

    /// Scores the places of every node for a pod that asks no MIG partition.
    pub(crate) fn score(&mut self, question: &Question<'_>, scores: &mut Vec<i32>) {
        let asked = question.asked();
        let ask = Ask { cpu: asked.cpu(), count: asked.count(), milli: asked.milli(), total: asked.total_milli() };
        // One GPU, or several that are idle before and alike after: the first speaks for all.
        let alike = ask.count <= 1 || ask.milli as usize == WHOLE;
        let (nodes, gpus) = (question.view.nodes, question.view.gpus);
        for places in question.candidates.by_node() {
            let rows = nodes.gpu_start[places.node] as usize..nodes.gpu_start[places.node + 1] as usize;
            let (models, shares) = (&gpus.model[rows.clone()], &gpus.free[rows.clone()]);
            let state = self.state(&ask, models, shares, nodes.cpu_free[places.node], nodes.cpu_capacity[places.node]);
            for &gpu in &question.candidates.gpu[places.range] {
                let score = if gpu == NONE {
                    state.without_gpu
                } else {
                    let (model, share) = (gpus.model[gpu as usize], gpus.free[gpu as usize]);
                    let wasted = if alike {
                        i64::from(ask.count) * (self.rest(share.saturating_sub(ask.milli)) - self.rest(share))
                    } else {
                        let after = taking::left(question, rows.clone(), gpu as usize);
                        shares.iter().zip(after).map(|(&before, after)| self.rest(after) - self.rest(before)).sum()
                    };
                    let price = if model == state.shape.0 { state.price } else { self.price(state.shape_of(model, models)) };
                    compress(-price * (state.lost + wasted))
                };
                scores.push(score);
            }
        }
    }

    /// What the places of a node share.
    fn state(&mut self, ask: &Ask, models: &[u32], shares: &[u32], cpu: u32, cpu_capacity: u32) -> State {
        let first = models.first().copied().unwrap_or(NONE);
        let (mut free, mut same) = (0, 0);
        for (&model, &share) in models.iter().zip(shares) {
            free += share;
            same += u32::from(model == first);
        }
        let cpu_left = cpu.saturating_sub(ask.cpu);
        let lost = TENTHS * (self.usable(cpu, free) - self.usable(cpu_left, free.saturating_sub(ask.total)));
        let shape = (first, same, cpu_capacity);
        let price = self.price(shape);
        let without_gpu = if models.is_empty() {
            i64::from(WITHOUT_GPU - cpu_left.min(WITHOUT_GPU - 1))
        } else {
            // The bound keeps the sum within 64 bits, whatever a node claims to have of cpu.
            -(price * lost + ((i64::from(cpu_left) * self.spare).min(1 << 42) << (2 * PRICE)))
        };
        let without_gpu = compress(without_gpu);
        State { lost, shape, price, without_gpu }
    }
}

/// What the pod asks.
#[derive(Clone, Copy, Debug)]
struct Ask {
    cpu: u32,
    count: u32,
    milli: u32,
    total: u32,
}

/// What the places of a node share.
#[derive(Clone, Copy, Debug)]
struct State {
    /// Ten times what the pod takes of the usable capacity.
    lost: i64,
    /// The shape by the model of the first GPU, and its price.
    shape: Shape,
    price: i64,
    /// The score of a pod that asks no GPU.
    without_gpu: i32,
}

impl State {
    /// The shape of the same node by another model.
    fn shape_of(&self, model: u32, models: &[u32]) -> Shape {
        (model, models.iter().filter(|other| **other == model).count() as u32, self.shape.2)
    }
}

/// The squared price of every shape; none without demand, which prices all alike.
fn prices(view: &View<'_>, kinds: &[(Demand<'_>, u128)], total: u128) -> Vec<(Shape, i64)> {
    if total == 0 {
        return Vec::new();
    }
    let shapes: Vec<(Shape, u128)> = view
        .shape_rows()
        .map(|row| ((row.model(), row.gpus(), row.cpu_capacity()), u128::from(row.gpus()) * u128::from(row.nodes())))
        .collect();
    let all: u128 = shapes.iter().map(|(_, gpus)| gpus).sum();
    // The demand that falls on the GPUs of every shape, as if all GPUs were of that shape.
    let mut loads = vec![0u128; shapes.len()];
    for (demand, milli) in kinds {
        let takes = |&(model, gpus, cpu): &Shape| {
            serves(view, demand, model) && (demand.count() == 1 || demand.count() <= gpus && demand.cpu() <= cpu)
        };
        let supply: u128 = shapes.iter().filter(|(shape, _)| takes(shape)).map(|(_, gpus)| gpus).sum();
        let Some(load) = (milli * all).checked_div(supply) else { continue };
        for ((shape, _), sum) in shapes.iter().zip(&mut loads) {
            *sum += if takes(shape) { load } else { 0 };
        }
    }
    let price = |load: u128| ((load << PRICE) / total).clamp(PRICES.0, PRICES.1) as i64;
    let mut prices: Vec<(Shape, i64)> = shapes.iter().zip(loads).map(|((shape, _), load)| (*shape, price(load).pow(2))).collect();
    prices.sort_unstable();
    prices
}

#[cfg(test)]
mod tests {
    use partita_sdk::{Candidates, Demands, Gpus, Models, Nodes, Shapes};

    use super::*;

    /// The scores of all places of one node, candidates given by GPU row.
    fn scores(view: &View<'_>, demand: usize, gpu: &[u32]) -> Vec<i32> {
        let (zeros, nones) = (vec![0; gpu.len()], vec![NONE; gpu.len()]);
        let candidates = Candidates { node: &zeros, gpu, profile: &nones, slot: &nones, ..Candidates::default() };
        let question = Question { view: *view, demand, candidates };
        let mut scores = Vec::new();
        Value::of(view).score(&question, &mut scores);
        scores
    }

    /// The score of so many tenths of a milli-GPU at the average price.
    fn tenths(tenths: i64) -> i32 {
        compress(tenths << (MILLI + 2 * PRICE))
    }

    /// One kind of half a GPU with 4 cores, so R is 0.125; a node with 10 of 16 cores and 500 and 800 milli-GPU free.
    fn view<'a>(asked_cpu: &'a [u32; 2], asked: &'a [u32; 2], count: &'a [u32; 2]) -> View<'a> {
        View {
            models: Models { gpus: &[2], memory: &[0], slots: &[0] },
            shapes: Shapes { model: &[0], gpus: &[2], cpu_capacity: &[16_000], nodes: &[1] },
            nodes: Nodes { cpu_free: &[10_000], cpu_capacity: &[16_000], gpu_start: &[0, 2], ..Nodes::default() },
            gpus: Gpus { model: &[0, 0], free: &[500, 800], mig: &[0, 0], ..Gpus::default() },
            demands: Demands {
                cpu: asked_cpu,
                count,
                milli: asked,
                weight: &[1, 0],
                model_start: &[0; 3],
                profile_start: &[0; 3],
                ..Demands::default()
            },
            ..View::default()
        }
    }

    #[test]
    fn a_place_costs_the_usable_capacity_and_the_rest() {
        // Usable before: min(1300, 1250); after 300 milli-GPU and 2 cores: min(1000, 1000). Lost 250, in tenths 2500.
        // 500 - 300 leaves a rest of 200 where there was none; 800 - 300 leaves none where there was one of 300.
        assert_eq!(scores(&view(&[4_000, 2_000], &[500, 300], &[1, 1]), 1, &[0, 1]), [-2_500 - 200, -2_500 + 300].map(tenths));
    }

    #[test]
    fn a_pod_without_gpu_pays_for_stranded_gpus_and_for_free_cpu() {
        // Usable after 2 cores: min(1300, 1000), lost 250; 8 cores left are worth 1000 milli-GPU.
        assert_eq!(scores(&view(&[4_000, 2_000], &[500, 0], &[1, 0]), 1, &[NONE]), [-2_500 - 1_000].map(tenths));
    }

    #[test]
    fn a_pod_without_gpu_goes_to_nodes_without_gpu_first() {
        let mut view = view(&[4_000, 2_000], &[500, 0], &[1, 0]);
        view.nodes.gpu_start = &[0, 0];
        assert_eq!(scores(&view, 1, &[NONE]), [(1 << 20) - 8_000].map(compress));
    }

    #[test]
    fn without_a_mix_first_fit_decides() {
        let mut view = view(&[4_000, 2_000], &[500, 300], &[1, 1]);
        view.demands.weight = &[0, 0];
        assert_eq!(scores(&view, 1, &[0, 1]), [-300 * 10; 2].map(tenths));
    }

    #[test]
    fn models_that_the_mix_insists_on_cost_more() {
        // Eight GPUs, four of each model. A quarter of the demand insists on model 0: its load is 1 * 8 / 4 + 3 of 4, the other's 3 of 4.
        let demands = Demands {
            cpu: &[1; 2],
            count: &[1; 2],
            milli: &[1000; 2],
            weight: &[1, 3],
            model_start: &[0, 1, 1],
            models: &[0],
            profile_start: &[0; 3],
            ..Demands::default()
        };
        let shapes = Shapes { model: &[0, 1], gpus: &[4, 2], cpu_capacity: &[8, 8], nodes: &[1, 2] };
        let value = Value::of(&View { demands, shapes, ..View::default() });
        // 1.25 and 0.75 with 8 bits after the point, squared.
        assert_eq!(value.prices, [((0, 4, 8), 320 * 320), ((1, 2, 8), 192 * 192)]);
    }

    #[test]
    fn several_gpus_fall_on_nodes_that_hold_them() {
        // Half of the demand asks four GPUs with 8 milli-cores, which only the second shape has: load 0.5 and 0.5 + 0.5 * 16 / 4.
        let demands = Demands {
            cpu: &[8, 1],
            count: &[4, 1],
            milli: &[1000; 2],
            weight: &[1, 4],
            model_start: &[0; 3],
            profile_start: &[0; 3],
            ..Demands::default()
        };
        let shapes = Shapes { model: &[0; 3], gpus: &[4, 4, 2], cpu_capacity: &[4, 8, 8], nodes: &[1, 1, 4] };
        let value = Value::of(&View { demands, shapes, ..View::default() });
        assert_eq!(value.prices, [((0, 2, 8), 128 * 128), ((0, 4, 4), 128 * 128), ((0, 4, 8), 640 * 640)]);
    }
}
