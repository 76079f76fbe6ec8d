// SPDX-License-Identifier: GPL-2.0

//! Pending signals of the current task, which [`kernel::task`] lacks.
//!
//! C header: [`include/linux/sched/signal.h`](srctree/include/linux/sched/signal.h)

/// Returns whether the current task has a fatal signal pending.
pub(crate) fn is_being_killed() -> bool {
    // SAFETY: The function accesses the current task only.
    unsafe { super::rust_helper_fatal_signal_pending() }
}
