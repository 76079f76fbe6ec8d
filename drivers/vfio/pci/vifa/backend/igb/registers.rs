// SPDX-License-Identifier: GPL-2.0

//! Registers of a virtual function of the 82576 and of the I350, as its BAR 0 has them.
//!
//! The two differ in the number of queues alone. Page 0 has control, mailbox and statistics, and is
//! mediated; the pages behind it, of interrupts, of receive and of transmit, are the guest's own.

use super::fault::Fault;

/// The registers of one virtual function, 32 bits each.
pub(crate) trait Access {
    /// Returns what a read of the register at `offset` of BAR 0 comes back with: all ones where
    /// there is no function any more.
    ///
    /// # Errors
    ///
    /// The function does not answer, because it is being reset or was closed. Nothing was read.
    fn load(&mut self, offset: u32) -> Result<u32, Fault>;

    /// Returns what the register at `offset` of BAR 0 holds.
    ///
    /// # Errors
    ///
    /// As [`Self::load`], or [`Fault::Gone`].
    fn read(&mut self, offset: u32) -> Result<u32, Fault> {
        let value = self.load(offset)?;

        // A guest may write all ones to some registers. STATUS is read only, and never so.
        if value == u32::MAX && self.load(page0::STATUS)? == u32::MAX {
            return Err(Fault::Gone);
        }
        Ok(value)
    }

    /// Writes the register at `offset` of BAR 0.
    ///
    /// # Errors
    ///
    /// As [`Self::load`]. Nothing was written.
    fn write(&mut self, offset: u32, value: u32) -> Result<(), Fault>;
}

/// Declares constants that share a visibility and a type.
macro_rules! registers {
    ($($(#[$attribute:meta])* $name:ident = $value:expr;)*) => {
        $($(#[$attribute])* pub(crate) const $name: u32 = $value;)*
    };
}

/// Bytes of BAR 0.
pub(crate) const BAR_LENGTH: u32 = 0x4000;

/// Page 0.
pub(crate) mod page0 {
    registers! {
        /// Control of the function.
        VTCTRL = 0x0000;
        /// Status of the port.
        STATUS = 0x0008;
        /// First word of the mailbox's buffer.
        VMBMEM = 0x0800;
        /// Control of the mailbox.
        V2PMAILBOX = 0x0c40;
        /// Clears pending bits of MSI-X; QEMU's model clears the physical function's by it.
        PBACL = 0x0f04;
        /// Which headers are split off.
        PSRTYPE = 0x0f0c;
        /// Bytes of the page.
        LENGTH = 0x1000;
    }
}

/// Bits of [`page0::VTCTRL`].
pub(crate) mod vtctrl {
    registers! {
        /// Resets the queues and the interrupts; clears itself.
        RST = 1 << 26;
    }
}

/// Bits of [`page0::STATUS`].
pub(crate) mod status {
    registers! {
        /// The link is up.
        LU = 1 << 1;
    }
}

/// Bits of [`page0::V2PMAILBOX`].
pub(crate) mod mailbox {
    registers! {
        /// There is a request in the buffer. Write only.
        REQ = 1 << 0;
        /// The physical function's message was read. Write only.
        ACK = 1 << 1;
        /// The virtual function owns the buffer.
        VFU = 1 << 2;
        /// The physical function owns the buffer.
        PFU = 1 << 3;
        /// The physical function has put a message into the buffer.
        PFSTS = 1 << 4;
        /// The physical function has read the request.
        PFACK = 1 << 5;
        /// The physical function is being reset.
        RSTI = 1 << 6;
        /// The physical function's reset is done.
        RSTD = 1 << 7;
        /// What a virtual function writes.
        WRITABLE = REQ | ACK | VFU;
        /// What a read clears.
        READ_TO_CLEAR = PFSTS | PFACK | RSTD;
    }
}

/// Words of the mailbox's buffer.
pub(crate) const BUFFER_WORDS: usize = 16;

/// Returns the offset of a word of the mailbox's buffer.
pub(crate) fn buffer_word(word: usize) -> u32 {
    page0::VMBMEM.saturating_add((word as u32).saturating_mul(4))
}

/// Returns which word of the mailbox's buffer stands at `offset`.
pub(crate) fn word_of_buffer(offset: u32) -> Option<usize> {
    let word = (offset.checked_sub(page0::VMBMEM)? / 4) as usize;

    (word < BUFFER_WORDS).then_some(word)
}

/// Statistics: counters that wrap, and that a read does not clear.
pub(crate) mod statistics {
    /// Number of counters.
    pub(crate) const COUNTERS: usize = 9;

    /// Offsets: good packets and octets received and transmitted, multicast packets received, and
    /// the same of what the local switch looped back.
    pub(crate) const OFFSETS: [u32; COUNTERS] = [
        0x0f10, 0x0f14, 0x0f18, 0x0f34, 0x0f3c, 0x0f40, 0x0f44, 0x0f48, 0x0f50,
    ];
}

/// Interrupts: page 1.
pub(crate) mod interrupt {
    registers! {
        /// Raises causes. Write only.
        EICS = 0x1520;
        /// Unmasks causes.
        EIMS = 0x1524;
        /// Masks causes. Write only.
        EIMC = 0x1528;
        /// Which causes clear themselves when they are sent.
        EIAC = 0x152c;
        /// Which causes mask themselves when they are sent.
        EIAM = 0x1530;
        /// Causes; a read clears them, and so do ones written.
        EICR = 0x1580;
        /// Throttle of the first vector.
        EITR = 0x1680;
        /// Vectors of the queues.
        IVAR0 = 0x1700;
        /// Vector of the mailbox.
        IVAR_MISC = 0x1740;
        /// A cause for each vector.
        CAUSES = 0x7;
        /// In EITR: the interval. The rest counts down, or is write only.
        EITR_INTERVAL = 0x7ffe;
        /// In EITR: a write leaves the counter alone.
        EITR_CNT_IGNR = 1 << 31;
        /// In each byte of IVAR: the vector.
        IVAR_VECTOR = 0x3;
        /// In each byte of IVAR: there is a vector.
        IVAR_VALID = 0x80;
        /// What each of the four bytes of IVAR0 may hold.
        IVAR0_BITS = 0x8383_8383;
        /// What IVAR_MISC may hold.
        IVAR_MISC_BITS = 0x83;
    }

    /// Vectors of a function.
    pub(crate) const VECTORS: usize = 3;
}

/// Queues: page 2 has the receive rings, page 3 the transmit rings.
pub(crate) mod queue {
    registers! {
        /// From the registers of one queue to those of the next.
        STRIDE = 0x100;

        /// Address of the receive ring, low.
        RDBAL = 0x2800;
        /// Address of the receive ring, high.
        RDBAH = 0x2804;
        /// Bytes of the receive ring.
        RDLEN = 0x2808;
        /// How buffers are filled.
        SRRCTL = 0x280c;
        /// Head of the receive ring.
        RDH = 0x2810;
        /// Direct cache access of received packets.
        RXCTL = 0x2814;
        /// Tail of the receive ring.
        RDT = 0x2818;
        /// Control of the receive ring.
        RXDCTL = 0x2828;

        /// Address of the transmit ring, low.
        TDBAL = 0x3800;
        /// Address of the transmit ring, high.
        TDBAH = 0x3804;
        /// Bytes of the transmit ring.
        TDLEN = 0x3808;
        /// Head of the transmit ring.
        TDH = 0x3810;
        /// Direct cache access of transmitted packets.
        TXCTL = 0x3814;
        /// Tail of the transmit ring.
        TDT = 0x3818;
        /// Control of the transmit ring.
        TXDCTL = 0x3828;
        /// Where the head is written back, low.
        TDWBAL = 0x3838;
        /// Where the head is written back, high.
        TDWBAH = 0x383c;

        /// Bytes of a descriptor, of which rings are made.
        DESCRIPTOR = 16;
        /// What a length may hold: multiples of 128.
        LENGTH_BITS = 0x000f_ff80;
        /// What a head and a tail may hold.
        INDEX_BITS = 0xffff;
        /// What the low half of an address may hold: multiples of a descriptor's bytes.
        BASE_BITS = 0xffff_fff0;
        /// In RXDCTL and TXDCTL: the queue is enabled.
        ENABLE = 1 << 25;
        /// In RXDCTL and TXDCTL: descriptors that are done are written back at once.
        SWFLUSH = 1 << 26;
        /// In RXDCTL and TXDCTL: how many descriptors that are done are written back together.
        WTHRESH = 0x1f << 16;
        /// [`WTHRESH`]: each at once.
        WTHRESH_ONE = 1 << 16;
        /// What RXDCTL holds besides: thresholds.
        RXDCTL_BITS = 0x001f_1f1f;
        /// What TXDCTL holds besides: thresholds, priority; of the I350, the threshold for writing
        /// the head back (HWBTHRESH).
        TXDCTL_BITS = 0xf81f_1f1f;
        /// What SRRCTL holds: sizes, minimum of descriptors, descriptor type, time stamp, drop; of
        /// the I350, that the queue takes no part in DMA coalescing (DMACQ_Dis).
        SRRCTL_BITS = 0xcff0_3fff;
        /// What RXCTL holds: hints and ordering of each kind of access, target.
        RXCTL_BITS = 0xff00_ffef;
        /// What TXCTL holds: hints and ordering of each kind of access, target.
        TXCTL_BITS = 0xff00_3f2f;
        /// What TDWBAL holds: the address, whether the head is written back, and, of the I350,
        /// whether it is at the end of each interval of the throttle (WB_on_EITR).
        TDWBAL_BITS = 0xffff_ffff;
    }

    /// Most queue pairs of a function: two on the 82576, one on the I350.
    pub(crate) const QUEUES_MAX: usize = 2;
}
