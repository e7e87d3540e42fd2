//! What is derived from the outlook, kept from question to question.
//!
//! The mix changes rarely and questions are often about one node, so deriving tables from the mix would cost more than the answer. An outlook
//! has a number, and what was derived from it is kept under that.

use partita_sdk::View;

/// A value derived from the outlook, and the number of the outlook.
#[derive(Debug)]
pub(crate) struct Memo<T>(Option<(u64, T)>);

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Memo<T> {
    /// The value for the outlook of `view`: the kept one if it is the same outlook, else `derive`d anew.
    pub(crate) fn of(&mut self, view: &View<'_>, derive: impl FnOnce(&View<'_>) -> T) -> &mut T {
        if self.0.as_ref().is_some_and(|kept| kept.0 != view.outlook) {
            self.0 = None;
        }
        &mut self.0.get_or_insert_with(|| (view.outlook, derive(view))).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_outlook_derives_anew() {
        let mut memo = Memo::default();
        let mut derived = 0;
        let mut ask = |outlook| {
            memo.of(&View { outlook, ..View::default() }, |_| derived += 1);
            derived
        };
        assert_eq!([ask(7), ask(7), ask(8), ask(7)], [1, 1, 2, 3]);
    }
}
