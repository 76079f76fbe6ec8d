// SPDX-License-Identifier: GPL-2.0

//! Progress of long operations, on standard error if that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress bar in bytes. It is hidden if standard error is not a terminal.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Creates a bar for `what`, an operation on `total` bytes; `None` if the total is unknown.
    pub(crate) fn bytes(what: &str, total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let template = if total.is_some() {
            "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}"
        } else {
            "{msg} {spinner} {bytes} {binary_bytes_per_sec}"
        };

        bar.set_style(
            ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> "),
        );
        bar.set_message(what.to_owned());
        Self(bar)
    }

    /// `bytes` more are done.
    pub(crate) fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
