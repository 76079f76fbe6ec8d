// SPDX-License-Identifier: GPL-2.0

//! Tests that counters continue from their values.

use proptest::prelude::*;

use super::physical::{Administration, Port};
use crate::backend::igb::portable::{mailbox::shadow::Shadow, registers::statistics::OFFSETS};

proptest! {
    /// Across two migrations, the guest sees the counters of a single function.
    #[test]
    fn counters_continue(events in any::<[[u32; 9]; 3]>(), before in any::<[[u32; 9]; 3]>()) {
        let mut total = before[0];
        let mut shadow = Shadow::new();
        let mut port = Port::new(&Administration::default());

        for (life, (events, before)) in events.into_iter().zip(before).enumerate() {
            let mut next = Port::new(&Administration::default());
            for (counter, count) in before.into_iter().enumerate() {
                next.count(counter, count);
            }
            if life > 0 {
                let page = shadow.save(&mut port).unwrap();
                let configuration = *shadow.configuration();
                shadow = Shadow::new();
                shadow.restore(&configuration, &page, before);
            }
            port = next;
            for (counter, count) in events.into_iter().enumerate() {
                port.count(counter, count);
                total[counter] = total[counter].wrapping_add(count);
            }
            for (counter, offset) in OFFSETS.into_iter().enumerate() {
                prop_assert_eq!(shadow.read(&mut port, offset).unwrap(), total[counter]);
            }
        }
    }
}
