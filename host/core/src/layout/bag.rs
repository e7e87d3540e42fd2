//! Counts of up to 16 kinds in one word: partitions by profile, or wants by kind.

/// How many of each of up to 16 kinds, a byte each, none above 127: sums and comparisons are a few instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bag(u128);

/// The top bit of each byte, which no count reaches.
const GUARD: u128 = u128::from_ne_bytes([0x80; 16]);

impl Bag {
    /// Nothing.
    pub const EMPTY: Self = Self(0);
    /// Kinds that fit.
    pub const KINDS_MAX: usize = 16;
    /// The highest count that fits.
    pub const COUNT_MAX: u32 = 127;

    /// One of `kind`, below [`Bag::KINDS_MAX`].
    #[must_use]
    pub fn one(kind: usize) -> Self {
        Self(1 << (kind * 8))
    }

    /// `count` of `kind`; both within their limits.
    #[must_use]
    pub fn of(kind: usize, count: u32) -> Self {
        Self(u128::from(count.min(Self::COUNT_MAX)) << (kind * 8))
    }

    /// How many of `kind`.
    #[must_use]
    pub fn get(self, kind: usize) -> u32 {
        ((self.0 >> (kind * 8)) & 0xff) as u32
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many of all kinds together.
    #[must_use]
    pub fn total(self) -> u32 {
        self.iter().map(|(_, count)| count).sum()
    }

    /// Whether it has at least as many of each kind as `other`.
    #[must_use]
    pub fn holds(self, other: Self) -> bool {
        ((self.0 | GUARD) - other.0) & GUARD == GUARD
    }

    /// Both together; no count may pass [`Bag::COUNT_MAX`].
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// What is left without `other`, which it holds.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }

    /// The smaller count of each kind.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        // A byte of ones where this count is at least the other.
        let at_least = ((((self.0 | GUARD) - other.0) & GUARD) >> 7) * 0xff;
        Self((other.0 & at_least) | (self.0 & !at_least))
    }

    /// Kinds with their counts, where there are any.
    pub fn iter(self) -> impl Iterator<Item = (usize, u32)> {
        (0..Self::KINDS_MAX).map(move |kind| (kind, self.get(kind))).filter(|entry| entry.1 > 0)
    }

    /// The sum of the counts, each times its weight.
    #[must_use]
    pub(super) fn weigh(self, weights: &[u32; Self::KINDS_MAX]) -> u32 {
        let mut rest = self.0;
        let mut sum = 0;
        while rest != 0 {
            let kind = rest.trailing_zeros() as usize / 8;
            sum += self.get(kind) * weights[kind];
            rest &= !(0xff << (kind * 8));
        }
        sum
    }
}

/// Leaves only those bags that no other one holds, largest first in the order of words.
pub(super) fn keep_largest(bags: &mut Vec<Bag>) {
    // A bag that holds another is the larger word.
    bags.sort_unstable_by(|a, b| b.cmp(a));
    bags.dedup();
    let mut kept = 0;
    for row in 0..bags.len() {
        let bag = bags[row];
        if !bags[..kept].iter().any(|larger| larger.holds(bag)) {
            bags[kept] = bag;
            kept += 1;
        }
    }
    bags.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_behave_like_a_list_of_counts() {
        let (a, b) = (Bag::of(0, 3).plus(Bag::of(15, 127)), Bag::of(0, 4).plus(Bag::of(7, 1)));
        assert_eq!(a.common(b), Bag::of(0, 3));
        assert_eq!(b.common(a), Bag::of(0, 3));
        assert!(!a.holds(b) && !b.holds(a) && b.holds(Bag::one(7)) && a.holds(Bag::EMPTY));
        assert_eq!(a.plus(b).minus(a), b);
        assert_eq!((a.total(), b.iter().collect::<Vec<_>>()), (130, vec![(0, 4), (7, 1)]));
        let mut bags = vec![Bag::of(0, 1), Bag::of(1, 1), Bag::of(0, 2), Bag::EMPTY, Bag::of(1, 1)];
        keep_largest(&mut bags);
        assert_eq!(bags, [Bag::of(1, 1), Bag::of(0, 2)]);
    }
}
