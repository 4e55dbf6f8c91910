//! Repeatable chance: the same keys give the same numbers.

/// A generator that only the keys determine.
pub struct Dice(fastrand::Rng);

impl Dice {
    /// Different dice for each combination of keys.
    pub fn new(keys: impl IntoIterator<Item = u64>) -> Self {
        Dice(fastrand::Rng::with_seed(
            keys.into_iter().fold(0, |seed, key| fastrand::Rng::with_seed(seed).u64(..) ^ key),
        ))
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0.usize(..limit)
    }

    /// True once in `many` times.
    pub fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    /// One of the items.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Puts the items in any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }
}
