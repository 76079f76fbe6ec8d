// SPDX-License-Identifier: GPL-2.0

//! The driver makes the device read the next run of local memory ahead, and write one run while the
//! next arrives. Here the device hangs in such a command during another operation.

use anyhow::{Context, Result};
use vifa_device::{
    opcode::{LOCAL_READ, LOCAL_WRITE},
    Armed, Fault, Opcode, RegisterFile,
};

use super::{fixture::Guest, Test};
use crate::{
    bed::Bed,
    expect, hw,
    migration::{Segments, Session, State},
    stream::Stream,
};

/// The session's operation in which the device hangs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Save,
    Restore,
}

impl Way {
    /// Returns the command in which the device hangs, and the number of preceding successful ones.
    fn command(self) -> (Opcode, u32) {
        match self {
            // The driver waits for the first run and reads the second one ahead.
            Self::Save => (LOCAL_READ, 1),
            Self::Restore => (LOCAL_WRITE, 0),
        }
    }
}

/// The concurrent operation.
type Moment = fn(&mut Hanging) -> Result<()>;

const MOMENTS: [(&str, Moment); 6] = [
    ("its_session_ends", Hanging::end),
    ("it_is_reset", |hanging| hanging.guest.vf.reset()),
    ("its_guest_resets_it", |hanging| {
        hanging.guest.vf.function_level_reset()
    }),
    ("its_session_is_closed", Hanging::close),
    ("its_session_goes_on", Hanging::go_on),
    ("its_data_size_is_requested", Hanging::ask),
];

pub fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (what, way) in [("reads_ahead", Way::Save), ("writes_behind", Way::Restore)] {
        for (how, fault) in [("hangs", Fault::Hang), ("hangs_for_good", Fault::HangAbort)] {
            for (meanwhile, moment) in MOMENTS {
                tests.push(Test::new(
                    format!("overlap.device_{what}_and_{how}_while_{meanwhile}"),
                    move |bed| meets(bed, way, fault, moment),
                ));
            }
            tests.push(Test::new(
                format!("overlap.device_{what}_and_{how}_while_it_is_closed"),
                move |bed| is_closed(bed, way, fault),
            ));
        }
    }
    tests
}

/// A device that hangs in a command for which no call waits.
struct Hanging {
    guest: Guest,
    way: Way,
    fault: Fault,
    session: Option<Session>,
    /// The data that a restoring session has not yet written.
    rest: Vec<u8>,
}

impl Hanging {
    /// Brings the VF 0 into this condition; the fault is armed until the returned guard is dropped.
    fn new<'a>(
        bed: &Bed,
        registers: &'a RegisterFile,
        way: Way,
        fault: Fault,
    ) -> Result<(Self, Armed<'a>)> {
        let (guest, mut stream) = Guest::saved(bed, 0)?;
        let parsed = Stream::parse(&stream)?;
        let borders = parsed.borders();
        // The stream header, then header and payload of each section.
        let payload = 2 * parsed.position(hw::VIFA_SECTION_DATA)? + 2;
        let (opcode, before) = way.command();
        let _spared = (before > 0)
            .then(|| registers.arm(0, opcode, Fault::Delay(Default::default()), before))
            .transpose()?;
        let armed = registers.arm(0, opcode, fault, 1)?;
        let (session, rest) = match way {
            Way::Save => {
                let session = guest.vf.device.start(State::StopCopy)?;
                session.read(borders[payload] + 1)?;
                (session, Vec::new())
            }
            Way::Restore => {
                let session = guest.vf.device.start(State::Resuming)?;
                let rest = stream.split_off(borders[payload + 1]);
                session.write_all(&stream, Segments::Whole)?;
                (session, rest)
            }
        };
        expect::equal("times that the device hung", armed.fired(), 1)?;
        let hanging = Self {
            guest,
            way,
            fault,
            session: Some(session),
            rest,
        };
        Ok((hanging, armed))
    }

    /// Checks that the transition that ends the session succeeds, or reports an incomplete stream.
    /// A device that executes the abort needs no reset.
    fn end(&mut self) -> Result<()> {
        let device = &self.guest.vf.device;
        let result = device.request_state(State::Stop as u32);
        if self.way == Way::Restore {
            return expect::refused("end of the session", result, &[libc::EINVAL]);
        }
        result.context("end of the session")?;
        if self.fault == Fault::Hang {
            device.save().context("save without a reset")?;
        }
        Ok(())
    }

    /// Checks that closing the file does not end the session: it continues, and so does the device.
    fn close(&mut self) -> Result<()> {
        let before = self.guest.vf.device.state()?;
        drop(self.session.take());
        expect::equal("state", self.guest.vf.device.state()?, before)
    }

    /// Checks that the next use of the session reports a timeout of the device.
    fn go_on(&mut self) -> Result<()> {
        let session = self.session.as_ref().context("a session")?;
        let result = match self.way {
            Way::Save => session.read_all(Segments::Whole).map(drop),
            Way::Restore => session.write_all(&self.rest, Segments::Whole),
        };
        expect::refused("use of the session", result, &[libc::ETIMEDOUT])
    }

    /// Another command waits for the hanging one, and leaves the answer to its owner.
    fn ask(&mut self) -> Result<()> {
        let size = self.guest.vf.device.data_size();
        if self.fault == Fault::HangAbort {
            expect::refused("MIG_DATA_SIZE", size, &[libc::ETIMEDOUT])?;
        } else {
            size.context("MIG_DATA_SIZE")?;
        }
        self.go_on()
    }
}

fn meets(bed: &Bed, way: Way, fault: Fault, moment: Moment) -> Result<()> {
    let registers = RegisterFile::map(&bed.pf)?;
    let (mut hanging, armed) = Hanging::new(bed, &registers, way, fault)?;
    moment(&mut hanging)?;
    drop(armed);
    let Hanging { mut guest, .. } = hanging;
    guest.recover()?;
    guest.furnish(7)?;
    let stream = guest.vf.device.save().context("save afterwards")?;
    guest.vf.device.load(&stream).context("load afterwards")
}

fn is_closed(bed: &Bed, way: Way, fault: Fault) -> Result<()> {
    let registers = RegisterFile::map(&bed.pf)?;
    let (hanging, _armed) = Hanging::new(bed, &registers, way, fault)?;
    drop(hanging.guest);
    let session = hanging.session.context("a session")?;
    let result = match way {
        Way::Save => session.read(1).map(drop),
        Way::Restore => session.write(&[0]).map(drop),
    };
    expect::refused("use of the session", result, &[libc::ENODEV])?;
    Guest::new(bed, 0)?.work(1)
}
