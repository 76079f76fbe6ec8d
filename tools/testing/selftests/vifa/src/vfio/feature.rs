// SPDX-License-Identifier: GPL-2.0

//! `VFIO_DEVICE_FEATURE`.

use std::io;

use super::Device;
use vifa_vfio::{ioctl, request, Feature, Operation};

impl Device {
    /// Does what `feature` says, and returns its data.
    pub fn feature<T>(&self, mut feature: Feature<T>) -> io::Result<T> {
        self.raw_feature(&mut feature)?;
        Ok(feature.data)
    }

    /// As [`Self::feature`], where the data matters after an error too.
    pub fn raw_feature<T>(&self, feature: &mut Feature<T>) -> io::Result<()> {
        ioctl(self, &request::device_feature(), feature).map(drop)
    }

    /// Whether the feature `number` is there with `operation`.
    pub fn probe(&self, operation: Operation, number: u32) -> io::Result<()> {
        self.feature(Feature::new(operation, number, ()))
    }
}
