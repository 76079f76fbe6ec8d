// SPDX-License-Identifier: GPL-2.0

//! Registers of a virtual function of the 82576 and of the I350, in BAR 0.
//!
//! The two cards differ only in the number of queues. Page 0 contains control, mailbox and
//! statistics, and is mediated. The guest directly accesses the following pages, which contain
//! interrupts, receive queues and transmit queues.

/// Declares constants with the same visibility and type.
macro_rules! registers {
    ($($(#[$attribute:meta])* $name:ident = $value:expr;)*) => {
        $($(#[$attribute])* pub(crate) const $name: u32 = $value;)*
    };
}

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
        /// Clears pending bits of MSI-X. In QEMU's model it clears those of the physical function.
        PBACL = 0x0f04;
        /// Types of headers that are split from packets.
        PSRTYPE = 0x0f0c;
        /// Size of the page in bytes.
        LENGTH = 0x1000;
    }
}

/// Bits of [`page0::VTCTRL`].
pub(crate) mod vtctrl {
    registers! {
        /// Resets the queues and the interrupts. Clears itself.
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
        /// The buffer contains a request. Write only.
        REQ = 1 << 0;
        /// The virtual function has read the physical function's message. Write only.
        ACK = 1 << 1;
        /// The virtual function owns the buffer.
        VFU = 1 << 2;
        /// The physical function owns the buffer.
        PFU = 1 << 3;
        /// The physical function has written a message to the buffer.
        PFSTS = 1 << 4;
        /// The physical function has read the request.
        PFACK = 1 << 5;
        /// The physical function is being reset.
        RSTI = 1 << 6;
        /// The physical function's reset is complete.
        RSTD = 1 << 7;
        /// Bits that a virtual function writes.
        WRITABLE = REQ | ACK | VFU;
        /// Bits that a read clears.
        READ_TO_CLEAR = PFSTS | PFACK | RSTD;
    }
}

/// Number of words of the mailbox's buffer.
pub(crate) const BUFFER_WORDS: usize = 16;

/// Returns the offset of a word of the mailbox's buffer.
pub(crate) fn buffer_word(word: usize) -> u32 {
    page0::VMBMEM.saturating_add((word as u32).saturating_mul(4))
}

/// Returns the index of the word of the mailbox's buffer at `offset`, if any.
pub(crate) fn word_of_buffer(offset: u32) -> Option<usize> {
    let word = (offset.checked_sub(page0::VMBMEM)? / 4) as usize;

    (word < BUFFER_WORDS).then_some(word)
}

/// Statistics: counters that wrap. A read does not clear them.
pub(crate) mod statistics {
    /// Number of counters.
    pub(crate) const COUNTERS: usize = 9;

    /// Offsets: good packets and octets received and transmitted, multicast packets received, and
    /// the same for packets that the local switch looped back.
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
        /// Causes that are cleared automatically when their interrupt is sent.
        EIAC = 0x152c;
        /// Causes that are masked automatically when their interrupt is sent.
        EIAM = 0x1530;
        /// Causes. A read clears them, and so does a write of ones.
        EICR = 0x1580;
        /// Throttle of the first vector.
        EITR = 0x1680;
        /// Vectors of the queues.
        IVAR0 = 0x1700;
        /// Vector of the mailbox.
        IVAR_MISC = 0x1740;
        /// One cause per vector.
        CAUSES = 0x7;
        /// In EITR: the interval. The other bits are a down counter or write only.
        EITR_INTERVAL = 0x7ffe;
        /// In EITR: the write does not change the counter.
        EITR_CNT_IGNR = 1 << 31;
        /// In each byte of IVAR: the vector.
        IVAR_VECTOR = 0x3;
        /// In each byte of IVAR: the vector is valid.
        IVAR_VALID = 0x80;
        /// Valid bits of IVAR0: four bytes.
        IVAR0_BITS = 0x8383_8383;
        /// Valid bits of IVAR_MISC.
        IVAR_MISC_BITS = 0x83;
    }

    /// Number of vectors of a function.
    pub(crate) const VECTORS: usize = 3;
}

/// Queues: page 2 contains the receive rings, page 3 the transmit rings.
pub(crate) mod queue {
    registers! {
        /// Distance between the registers of two queues.
        STRIDE = 0x100;

        /// Address of the receive ring, low.
        RDBAL = 0x2800;
        /// Address of the receive ring, high.
        RDBAH = 0x2804;
        /// Length of the receive ring in bytes.
        RDLEN = 0x2808;
        /// Split and replication control: use of receive buffers.
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
        /// Length of the transmit ring in bytes.
        TDLEN = 0x3808;
        /// Head of the transmit ring.
        TDH = 0x3810;
        /// Direct cache access of transmitted packets.
        TXCTL = 0x3814;
        /// Tail of the transmit ring.
        TDT = 0x3818;
        /// Control of the transmit ring.
        TXDCTL = 0x3828;
        /// Address of the head write-back, low.
        TDWBAL = 0x3838;
        /// Address of the head write-back, high.
        TDWBAH = 0x383c;

        /// Size of a descriptor in bytes.
        DESCRIPTOR = 16;
        /// Valid bits of a length: multiples of 128.
        LENGTH_BITS = 0x000f_ff80;
        /// Valid bits of a head and a tail.
        INDEX_BITS = 0xffff;
        /// Valid bits of the low half of an address: multiples of the descriptor size.
        BASE_BITS = 0xffff_fff0;
        /// In RXDCTL and TXDCTL: the queue is enabled.
        ENABLE = 1 << 25;
        /// In RXDCTL and TXDCTL: completed descriptors are written back immediately.
        SWFLUSH = 1 << 26;
        /// In RXDCTL and TXDCTL: number of completed descriptors that are written back together.
        WTHRESH = 0x1f << 16;
        /// Value of [`WTHRESH`]: each descriptor is written back immediately.
        WTHRESH_ONE = 1 << 16;
        /// Saved bits of RXDCTL: thresholds.
        RXDCTL_BITS = 0x001f_1f1f;
        /// Saved bits of TXDCTL: thresholds, priority, and, on the I350, the threshold of the head
        /// write-back (HWBTHRESH).
        TXDCTL_BITS = 0xf81f_1f1f;
        /// Saved bits of SRRCTL: sizes, minimum of descriptors, descriptor type, time stamp, drop,
        /// and, on the I350, the exclusion of the queue from DMA coalescing (DMACQ_Dis).
        SRRCTL_BITS = 0xcff0_3fff;
        /// Saved bits of RXCTL: hints and ordering of each kind of access, target.
        RXCTL_BITS = 0xff00_ffef;
        /// Saved bits of TXCTL: hints and ordering of each kind of access, target.
        TXCTL_BITS = 0xff00_3f2f;
        /// Saved bits of TDWBAL: the address, the enable bit of the head write-back, and, on the
        /// I350, the write-back at the end of each throttle interval (WB_on_EITR).
        TDWBAL_BITS = 0xffff_ffff;
    }

    /// Maximum number of queue pairs of a function: two on the 82576, one on the I350.
    pub(crate) const QUEUES_MAX: usize = 2;
}
