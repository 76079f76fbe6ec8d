// SPDX-License-Identifier: GPL-2.0

//! Pages that are marked in the log without DMA, and pages that the log drops.

use vifa_qtest::{hw, Bed, Buffer, Frame, Mark, Random};

const PAGE: u64 = 4096;
const BASE: u64 = 1 << 33;
const PAGES: u64 = 4000;

/// Creates a bed whose VF 0 logs `PAGES` pages starting at `BASE`.
fn bed(properties: &str) -> Bed {
    let bed = Bed::new(&format!("fault-injection=on,{properties}"), 2);
    let answer = bed.log_start(0, PAGE, &[(BASE, PAGES * PAGE)]);
    assert_eq!(answer.status, hw::VIFA_STATUS_SUCCESS);
    bed
}

fn dirty(bed: &Bed) -> Vec<u64> {
    let (pages, lost) = bed.log_bits(
        0,
        hw::VIFA_DATA_LOG_READ_AND_CLEAR,
        BASE,
        PAGES * PAGE,
        PAGES,
    );
    assert!(!lost);
    pages
}

/// Returns the next number of the generator xorshift64*.
fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

#[test]
fn everything() {
    let bed = bed("");
    assert!(bed.mark(Mark::all(BASE, PAGES * PAGE)));
    assert_eq!(dirty(&bed), (0..PAGES).collect::<Vec<_>>());
    assert_eq!(dirty(&bed), []);
}

#[test]
fn a_run_in_each_stride() {
    let bed = bed("");
    let mark = Mark {
        stride: 1000 * PAGE,
        run: 3 * PAGE,
        ..Mark::all(BASE, 3002 * PAGE)
    };
    assert!(bed.mark(mark));
    let expected = [0, 1, 2, 1000, 1001, 1002, 2000, 2001, 2002, 3000, 3001];
    assert_eq!(dirty(&bed), expected, "the length truncates the last run");

    // In bytes: a run from the middle of a page to the middle of the next one.
    let mark = Mark {
        stride: 1000 * PAGE,
        run: PAGE,
        ..Mark::all(BASE + 10 * PAGE + 1, 1001 * PAGE)
    };
    assert!(bed.mark(mark));
    assert_eq!(dirty(&bed), [10, 11, 1010, 1011]);
}

#[test]
fn a_run_at_random_in_each_stride() {
    let bed = bed("");
    for (seed, stride, run) in [(1, 100, 1), (0xffff_ffff, 64, 5), (12345, 7, 6)] {
        let mark = Mark {
            seed,
            stride: stride * PAGE,
            run: run * PAGE,
            ..Mark::all(BASE, PAGES * PAGE - stride * PAGE / 2)
        };
        assert!(bed.mark(mark));
        let mut state = seed.into();
        let expected: Vec<u64> = (0..mark.length.div_ceil(PAGE))
            .step_by(stride as usize)
            .flat_map(|from| {
                let first = from + xorshift(&mut state) % (stride - run + 1);
                first..first + run
            })
            .filter(|page| page * PAGE < mark.length)
            .collect();
        assert_eq!(dirty(&bed), expected, "{mark:x?}");
    }
}

#[test]
fn marks_without_effect() {
    let bed = bed("");
    let good = Mark {
        stride: 8 * PAGE,
        run: PAGE,
        ..Mark::all(BASE, PAGES * PAGE)
    };
    for (what, bad) in [
        ("no such VF", Mark { vf: 64, ..good }),
        ("a VF that is off", Mark { vf: 5, ..good }),
        ("a VF that does not log", Mark { vf: 1, ..good }),
        ("no length", Mark { length: 0, ..good }),
        ("no stride", Mark { stride: 0, ..good }),
        ("no run", Mark { run: 0, ..good }),
        (
            "a run beyond its stride",
            Mark {
                run: 8 * PAGE + 1,
                ..good
            },
        ),
        (
            "beyond the end",
            Mark {
                start: u64::MAX,
                length: 2,
                ..good
            },
        ),
        (
            "an address that is not logged",
            Mark {
                start: 0,
                length: BASE,
                ..good
            },
        ),
        (
            "after the logged range",
            Mark::all(BASE + PAGES * PAGE, PAGE),
        ),
    ] {
        assert!(!bed.mark(bad), "{what}");
        assert_eq!(dirty(&bed), [], "{what}");
    }
    assert!(bed.mark(good));
    assert_eq!(dirty(&bed).len() as u64, PAGES / 8);
}

#[test]
fn no_mark_wraps() {
    let bed = bed("");
    let last = u64::MAX - (PAGE - 1);
    bed.log_start(1, PAGE, &[(0, PAGE), (last, PAGE)]);
    let wrapping = Mark {
        vf: 1,
        stride: PAGE + 8,
        run: PAGE,
        ..Mark::all(last, 2 * PAGE)
    };
    assert!(!bed.mark(wrapping), "across the end of the address space");
    let fitting = Mark {
        vf: 1,
        ..Mark::all(last, PAGE)
    };
    assert!(bed.mark(fitting));
}

#[test]
fn marks_require_fault_injection() {
    let off = Bed::new("", 1);
    off.log_start(0, PAGE, &[(BASE, PAGE)]);
    assert!(!off.mark(Mark::all(BASE, PAGE)), "without fault injection");
}

#[test]
fn a_lost_log_takes_no_marks() {
    let bed = bed("faults=log-lost:frame=data:opcode=4");
    assert!(bed.mark(Mark::all(BASE, PAGE)));
    let summary = Buffer::new(&bed, 1, 1);
    let [_, lost] = bed.succeed(
        Frame::Data(0),
        hw::VIFA_DATA_LOG_SUMMARY,
        [BASE, PAGE],
        Some(&summary),
    );
    assert_eq!(lost, u64::from(hw::VIFA_LOG_LOST));
    assert!(!bed.mark(Mark::all(BASE, PAGE)));
}

/// Returns how often the fault in a slot has occurred.
fn fired(bed: &Bed, slot: u32) -> u32 {
    let register = hw::fault_slot(slot) + hw::VIFA_FAULT_FIRED;
    bed.read32(bed.frame_register(hw::VIFA_HW_FRAME_LAYER, register))
}

/// One page in a million is dropped, independent of the sizes of the writes.
#[test]
fn drops_are_exact() {
    const MILLION: u64 = 1_000_000;
    let always = hw::VIFA_FAULT_ALWAYS;
    let bed = Bed::new(
        &format!("fault-injection=on,faults=log-drop:value={MILLION}:count={always}"),
        1,
    );
    bed.log_start(0, PAGE, &[(0, 1 << 40)]);
    let group = u64::from(hw::VIFA_LOG_SUMMARY_PAGES);
    let mut written = 0;
    for pages in [MILLION - 1, 1, 1, MILLION, MILLION / 2, 3 * MILLION] {
        assert!(bed.mark(Mark::all(written * PAGE, pages * PAGE)) || pages == 1);
        written += pages;
        assert_eq!(u64::from(fired(&bed, 0)), written / MILLION);
    }
    for n in 1..=written / MILLION {
        let dropped = n * MILLION - 1;
        let from = dropped / group * group;
        let (pages, _) = bed.log_bits(
            0,
            hw::VIFA_DATA_LOG_READ_AND_CLEAR,
            from * PAGE,
            group * PAGE,
            group,
        );
        let expected: Vec<u64> = (0..group)
            .filter(|page| from + page != dropped && from + page < written)
            .collect();
        assert!(pages == expected, "page {dropped} alone is not logged");
    }
}

/// Several slots that drop pages count as if each page were written separately.
#[test]
fn drops_of_several_slots() {
    let values = [7, 10, 3];
    let counts = [40, u32::MAX, 100];
    let faults: Vec<String> = values
        .iter()
        .zip(counts)
        .map(|(value, count)| format!("log-drop:vf=0:value={value}:count={count}"))
        .collect();
    let bed = bed(&format!("faults={}", faults.join("/")));
    let random = &mut Random::new(5);
    let (mut passed, mut fired_so_far) = ([0; 3], [0; 3]);
    for _ in 0..60 {
        let first = random.below(PAGES);
        let most = random.pick(&[1, 5, 60]);
        let end = PAGES.min(first + 1 + random.below(most));
        let mut expected = Vec::new();
        for page in first..end {
            let dropped = (0..3).any(|i| {
                if fired_so_far[i] == counts[i] {
                    return false;
                }
                passed[i] += 1;
                if passed[i] == values[i] {
                    passed[i] = 0;
                    fired_so_far[i] += 1;
                    return true;
                }
                false
            });
            if !dropped {
                expected.push(page);
            }
        }
        let marked = bed.mark(Mark::all(BASE + first * PAGE, (end - first) * PAGE));
        assert_eq!(marked, !expected.is_empty());
        assert_eq!(dirty(&bed), expected);
    }
    for (slot, times) in (0..).zip(fired_so_far) {
        assert_eq!(fired(&bed, slot), times, "slot {slot}");
    }
    assert!(fired_so_far[0] == counts[0] && fired_so_far[2] == counts[2]);
}
