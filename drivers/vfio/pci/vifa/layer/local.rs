// SPDX-License-Identifier: GPL-2.0

//! The local memory of a device that has none.

use super::{
    restore::LocalDestination,
    save::LocalSource, //
};

/// The type of the local memory of a device without local memory. It has no values.
pub enum NoLocalMemory {}

impl<E> LocalSource<E> for NoLocalMemory {
    fn mapped(&mut self, _offset: u64, _length: u64) -> Result<&[u8], E> {
        match *self {}
    }

    fn changed(&mut self, _offset: u64, _length: u64) -> Result<&[u8], E> {
        match *self {}
    }

    fn read_local(&mut self, _offset: u64, _length: usize) -> Result<(), E> {
        match *self {}
    }

    fn run(&self) -> &[u8] {
        match *self {}
    }
}

impl<E> LocalDestination<E> for NoLocalMemory {
    fn clear_local(&mut self) -> Result<(), E> {
        match *self {}
    }

    fn write_local(&mut self, _offset: u64, _length: usize) -> Result<(), E> {
        match *self {}
    }
}
