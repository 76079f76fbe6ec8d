// SPDX-License-Identifier: GPL-2.0

//! The tests. Each module is one subject; a test is named after the subject and its claim.

mod address;
mod binding;
mod bounds;
mod close;
mod compatibility;
mod device;
mod elsewhere;
mod failure;
mod fault;
mod feature;
pub(crate) mod fixture;
mod gone;
mod igb;
mod igb_mailbox;
mod lifetime;
mod logging;
mod memory;
mod overlap;
mod parallel;
mod physical;
mod pre_copy;
pub mod random;
mod region;
mod relation;
mod removal;
mod reset;
mod resources;
mod restore;
mod save;
mod state;
mod transfer;
mod vifactl;

use std::time::Duration;

use anyhow::Result;

use crate::{bed::Bed, process::DEADLINE};

/// A function that proves a claim on a test bed.
type Body = Box<dyn Fn(&Bed) -> Result<()>>;

/// A claim and its proof.
pub struct Test {
    /// `subject.claim`
    pub name: String,
    /// Deadline of the test.
    pub deadline: Duration,
    /// Returns an error with the expected and the actual result on failure.
    pub body: Body,
}

impl Test {
    /// Creates a test with the default deadline.
    fn new(name: impl Into<String>, body: impl Fn(&Bed) -> Result<()> + 'static) -> Self {
        Self {
            name: name.into(),
            deadline: DEADLINE,
            body: Box::new(body),
        }
    }

    /// Adds `seconds` to the deadline.
    fn with_more_time(self, seconds: u64) -> Self {
        Self {
            deadline: self.deadline + Duration::from_secs(seconds),
            ..self
        }
    }
}

/// Creates the tests of a subject from functions named after their claims.
macro_rules! claims {
    ($subject:literal: $($name:ident),* $(,)?) => {
        vec![$($crate::tests::Test::new(concat!($subject, ".", stringify!($name)), $name)),*]
    };
}
use claims;

/// Returns all tests in order of execution: foundations first. The largest test of the log has
/// `logged_writes` words written. The random caller is included if it has settings.
pub fn all(logged_writes: u64, random: Option<random::Settings>) -> Vec<Test> {
    [
        device::tests(),
        feature::tests(),
        state::tests(),
        save::tests(),
        restore::tests(),
        relation::tests(),
        address::tests(),
        resources::tests(),
        compatibility::tests(),
        transfer::tests(),
        pre_copy::tests(),
        logging::tests(logged_writes),
        memory::tests(),
        region::tests(),
        close::tests(),
        parallel::tests(),
        fault::tests(),
        bounds::tests(),
        overlap::tests(),
        reset::tests(),
        physical::tests(),
        gone::tests(),
        igb::tests(),
        igb_mailbox::tests(),
        failure::tests(),
        elsewhere::tests(),
        random::tests(random),
        vifactl::tests(),
        lifetime::tests(),
        binding::tests(),
        removal::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
