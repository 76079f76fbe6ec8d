// SPDX-License-Identifier: GPL-2.0

//! What [`kernel::task`] lacks.
//!
//! C header: [`include/linux/sched/signal.h`](srctree/include/linux/sched/signal.h)

/// Returns whether a signal is about to kill the current task.
pub(crate) fn is_being_killed() -> bool {
    // SAFETY: The function looks at the current task only.
    unsafe { super::rust_helper_fatal_signal_pending() }
}
