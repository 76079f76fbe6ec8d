// SPDX-License-Identifier: GPL-2.0

//! `VFIO_DEVICE_FEATURE`.

use std::io;

use vifa_vfio::{ioctl, request, Feature, Operation};

use super::Device;

impl Device {
    /// Issues `feature` and returns its data.
    pub fn feature<T>(&self, mut feature: Feature<T>) -> io::Result<T> {
        self.raw_feature(&mut feature)?;
        Ok(feature.data)
    }

    /// Like [`Self::feature`], and returns the data after an error, too.
    pub fn raw_feature<T>(&self, feature: &mut Feature<T>) -> io::Result<()> {
        ioctl(self, &request::device_feature(), feature).map(drop)
    }

    /// Returns whether the feature `number` supports `operation`.
    pub fn probe(&self, operation: Operation, number: u32) -> io::Result<()> {
        self.feature(Feature::new(operation, number, ()))
    }
}
