// SPDX-License-Identifier: GPL-2.0

//! Small sets without allocation.

/// A set of at most `N` values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Set<T, const N: usize> {
    /// The values in ascending order. Elements from `length` on are unused.
    values: [T; N],
    length: usize,
}

impl<T: Copy + Ord, const N: usize> Set<T, N> {
    /// Creates an empty set. `filler` is the value of unused elements.
    pub(crate) const fn new(filler: T) -> Self {
        Self {
            values: [filler; N],
            length: 0,
        }
    }

    /// Returns the values in ascending order.
    pub(crate) fn as_slice(&self) -> &[T] {
        self.values.get(..self.length).unwrap_or_default()
    }

    /// Returns whether the set contains `value`.
    pub(crate) fn contains(&self, value: T) -> bool {
        self.as_slice().binary_search(&value).is_ok()
    }

    /// Inserts `value`. Returns `false` if the set is full.
    pub(crate) fn insert(&mut self, value: T) -> bool {
        let Err(place) = self.as_slice().binary_search(&value) else {
            return true;
        };
        let Some(moved) = self.values.get_mut(place..=self.length) else {
            return false;
        };

        moved.rotate_right(1);
        if let Some(first) = moved.first_mut() {
            *first = value;
        }
        self.length = self.length.saturating_add(1);
        true
    }

    /// Removes `value`.
    pub(crate) fn remove(&mut self, value: T) {
        if let Ok(place) = self.as_slice().binary_search(&value) {
            if let Some(moved) = self.values.get_mut(place..self.length) {
                moved.rotate_left(1);
            }
            self.length = self.length.saturating_sub(1);
        }
    }

    /// Removes all values.
    pub(crate) fn clear(&mut self) {
        self.length = 0;
    }
}

impl<T: Copy + Ord, const N: usize> PartialEq for Set<T, N> {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl<T: Copy + Ord, const N: usize> Eq for Set<T, N> {}
