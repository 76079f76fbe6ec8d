// SPDX-License-Identifier: GPL-2.0

//! Small sets, which need no memory but their own.

/// A set of at most `N` values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Set<T, const N: usize> {
    /// The values ascend; what stands behind the last does not count.
    values: [T; N],
    length: usize,
}

impl<T: Copy + Ord, const N: usize> Set<T, N> {
    /// Makes an empty set. `filler` stands where there is no value.
    pub(crate) const fn new(filler: T) -> Self {
        Self {
            values: [filler; N],
            length: 0,
        }
    }

    /// Returns the values, which ascend.
    pub(crate) fn as_slice(&self) -> &[T] {
        self.values.get(..self.length).unwrap_or_default()
    }

    /// Returns whether the set has `value`.
    pub(crate) fn contains(&self, value: T) -> bool {
        self.as_slice().binary_search(&value).is_ok()
    }

    /// Puts `value` in; `false` if there is no room for it.
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

    /// Takes `value` out.
    pub(crate) fn remove(&mut self, value: T) {
        if let Ok(place) = self.as_slice().binary_search(&value) {
            if let Some(moved) = self.values.get_mut(place..self.length) {
                moved.rotate_left(1);
            }
            self.length = self.length.saturating_sub(1);
        }
    }

    /// Takes all values out.
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
