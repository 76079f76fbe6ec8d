// SPDX-License-Identifier: GPL-2.0

//! Tests of small sets.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use crate::backend::igb::portable::mailbox::set::Set;

proptest! {
    #[test]
    fn set_matches_the_model(changes in vec((any::<bool>(), 0..12u8), 0..60)) {
        let mut set = Set::<u8, 5>::new(0);
        let mut model = BTreeSet::new();

        for (insert, value) in changes {
            if insert {
                let has_room = model.len() < 5 || model.contains(&value);
                prop_assert_eq!(set.insert(value), has_room);
                if has_room {
                    model.insert(value);
                }
            } else {
                set.remove(value);
                model.remove(&value);
            }
            prop_assert_eq!(set.as_slice(), model.iter().copied().collect::<Vec<_>>());
            prop_assert!((0..12).all(|value| set.contains(value) == model.contains(&value)));
        }
        set.clear();
        prop_assert_eq!(set, Set::new(9));
    }
}
