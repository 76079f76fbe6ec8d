// SPDX-License-Identifier: GPL-2.0

//! Waiting for a condition.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Repeats `look` until it returns a value, for at most `timeout`. Returns `None` after that.
///
/// # Errors
///
/// Returns the first error of `look`.
pub fn wait_for<T, E>(
    timeout: Duration,
    mut look: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let deadline = Instant::now() + timeout;

    loop {
        let late = Instant::now() >= deadline;
        let found = look()?;

        if found.is_some() || late {
            return Ok(found);
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_the_first_value() {
        let mut looks = 0..;
        let found = wait_for(Duration::from_secs(300), || {
            Ok::<_, ()>(looks.next().filter(|&look| look == 2))
        });

        assert_eq!(found, Ok(Some(2)));
    }

    #[test]
    fn looks_once_after_the_timeout() {
        let mut looks = 0;
        let found = wait_for(Duration::ZERO, || {
            looks += 1;
            Ok::<Option<()>, ()>(None)
        });

        assert_eq!((found, looks), (Ok(None), 1));
    }
}
