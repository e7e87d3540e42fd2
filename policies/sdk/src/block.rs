//! From the block of a question, which the host packs, to its columns. `wit/policy.wit` (`types.block`, `types.column`) says how they lie.

use crate::columns::{Candidates, Demands, Gpus, Models, Nodes, Profiles, Shapes, View};
use crate::partitioner::Movable;
use crate::policy::Refusal;

/// The columns of one question.
pub(crate) struct Columns<'a> {
    pub(crate) view: View<'a>,
    pub(crate) candidates: Candidates<'a>,
    pub(crate) movable: Movable<'a>,
}

/// Columns yet to be read.
struct Reader<'a> {
    block: &'a [u32],
    /// Where each column starts, and where the last one ends.
    starts: &'a [u32],
}

impl<'a> Reader<'a> {
    /// The columns of `block`, or nothing if it is no block.
    fn new(block: &'a [u32]) -> Option<Self> {
        let (&count, rest) = block.split_first()?;
        let starts = rest.get(..(count as usize).checked_add(1)?)?;
        let in_order = starts.windows(2).all(|pair| pair[0] <= pair[1]);
        (in_order && *starts.last()? as usize <= block.len()).then_some(Self { block, starts })
    }

    /// The next column; an empty one where an older host has none.
    fn next(&mut self) -> &'a [u32] {
        let &[start, end, ..] = self.starts else { return &[] };
        self.starts = &self.starts[1..];
        &self.block[start as usize..end as usize]
    }
}

impl<'a> Columns<'a> {
    /// Reads a block.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] for a list that is no block.
    pub(crate) fn of(block: &'a [u32]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(block).ok_or_else(|| Refusal::Unsupported("the question is no block of columns".into()))?;
        let mut next = || reader.next();
        // Fields are evaluated in the order in which they are written here, which is that of the package.
        let view = View {
            seed: next().first().copied().unwrap_or(0),
            models: Models { gpus: next(), memory: next(), slots: next() },
            shapes: Shapes { model: next(), gpus: next(), cpu_capacity: next(), nodes: next() },
            profiles: Profiles { model: next(), size: next(), compute: next(), memory: next(), starts: next() },
            nodes: Nodes {
                cpu_free: next(),
                cpu_capacity: next(),
                memory_free: next(),
                memory_capacity: next(),
                gpu_pods: next(),
                like_pods: next(),
                gpu_start: next(),
            },
            gpus: Gpus { model: next(), free: next(), used_slots: next(), warm_slots: next(), mig: next() },
            demands: Demands {
                cpu: next(),
                memory: next(),
                count: next(),
                milli: next(),
                weight: next(),
                model_start: next(),
                models: next(),
                profile_start: next(),
                profiles: next(),
            },
        };
        let [node, gpu, profile, slot] = [next(), next(), next(), next()];
        let movable = Movable { demand: next(), node: next(), gpu: next(), slot: next() };
        let candidates = Candidates {
            node,
            gpu,
            profile,
            slot,
            kind: next(),
            milli: next(),
            tier: next(),
            use_start: next(),
            use_gpu: next(),
            use_profile: next(),
            use_slot: next(),
        };
        Ok(Self { view, candidates, movable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of `count` columns, the column number i holding i ten times over.
    fn block(count: u32) -> Vec<u32> {
        let mut words = vec![count];
        words.extend((0..=count).map(|column| 2 + count + 10 * column));
        words.extend((0..count).flat_map(|column| [column; 10]));
        words
    }

    #[test]
    fn columns_are_read_in_the_order_of_the_package() {
        let words = block(60);
        let columns = Columns::of(&words).unwrap();
        assert_eq!(columns.view.seed, 0);
        assert_eq!(columns.view.models.gpus, [1; 10]);
        assert_eq!(columns.view.demands.profiles, [33; 10]);
        assert_eq!(columns.candidates.slot, [37; 10]);
        assert_eq!(columns.movable.slot, [41; 10]);
        assert_eq!((columns.candidates.kind, columns.candidates.use_slot), (&[42; 10][..], &[48; 10][..]));
    }

    #[test]
    fn columns_that_an_older_host_does_not_have_are_empty() {
        let words = block(3);
        let columns = Columns::of(&words).unwrap();
        assert_eq!(columns.view.models.memory, [2; 10]);
        assert_eq!((columns.view.models.slots, columns.candidates.node), (&[][..], &[][..]));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        let mut late = block(3);
        late[4] = 10_000;
        let mut backwards = block(3);
        backwards[2] = 0;
        for words in [&[][..], &[0][..], &[u32::MAX, 1][..], &[5, 1, 1][..], &late, &backwards] {
            assert!(Columns::of(words).is_err(), "{words:?}");
        }
    }
}
