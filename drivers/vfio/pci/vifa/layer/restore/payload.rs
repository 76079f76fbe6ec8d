// SPDX-License-Identifier: GPL-2.0

//! Processing of complete section payloads.

use super::{
    super::{
        address::Range,
        check::{
            check,
            Expectation,
            Violation, //
        },
        identity::Identity,
        interface::Interfaces,
        records::Table,
        relation::Relations,
        stream::{
            Checksum,
            DataRun,
            End,
            IdentityPayload,
            Kind,
            ResourcesHeader,
            Section, //
        },
    },
    phase::{
        Established,
        Phase, //
    },
    restorer::{
        Awaited,
        Payload,
        Restorer, //
    },
    Destination,
    LocalDestination,
    Place,
    RestoreError, //
};
use crate::seam::Bytes;

/// Returns a function that reports a violation in the payload of `section`.
fn malformed<E>(section: &Section) -> impl Fn(Violation) -> RestoreError<E> {
    let place: Place = section.place();

    move |violation| RestoreError::Malformed(place, violation)
}

impl<E: Copy> Restorer<E> {
    /// Processes the payload of `section`, and returns the next awaited part of the stream.
    pub(super) fn take_payload<D: Destination<Error = E>>(
        &mut self,
        destination: &mut D,
        section: Section,
        payload: Payload,
    ) -> Result<Awaited, RestoreError<E>> {
        match payload {
            Payload::Identity => self.take_identity(destination, &section)?,
            Payload::Relations => self.take_relations(destination, &section)?,
            Payload::Address(bytes) => self.take_address(destination, &section, bytes)?,
            Payload::RunHeader(run) => {
                let header = self.scratch.first_chunk().copied().unwrap_or_default();

                return Ok(Awaited::Payload(section, Payload::Run(run, header)));
            }
            Payload::Run(run, header) => self.take_run(destination, &section, run, header)?,
            Payload::ResourcesHeader => {
                let header = self.scratch.first_chunk().copied().unwrap_or_default();
                let length = (section.length as usize).saturating_sub(ResourcesHeader::LENGTH);
                let records = self.room(length, length)?;

                return Ok(Awaited::Payload(section, Payload::Records(records, header)));
            }
            Payload::Records(records, header) => {
                self.take_records(destination, &section, records, header)?;
            }
            Payload::Claim(records) => self.take_claim(destination, &section, records)?,
            Payload::Unknown(checksum) => section.verify(checksum)?,
            Payload::End => {
                self.take_end(destination, &section)?;
                self.progress.count_section();
                return Ok(Awaited::Nothing);
            }
        }
        self.progress.count_section();
        Ok(Awaited::SectionHeader)
    }

    fn take_identity<D: Destination<Error = E>>(
        &mut self,
        destination: &D,
        section: &Section,
    ) -> Result<(), RestoreError<E>> {
        let malformed = malformed(section);
        let payload = self
            .scratch
            .get(..IdentityPayload::LENGTH)
            .unwrap_or_default();

        section.verify(Checksum::EMPTY.and(payload))?;
        let source = IdentityPayload::decode(payload)
            .and_then(Identity::try_from)
            .map_err(&malformed)?;
        let interfaces = Interfaces::of_control(section.interface).map_err(&malformed)?;

        source
            .fits(destination.identity())
            .map_err(RestoreError::Incompatible)?;
        source.validate().map_err(malformed)?;
        self.phase = Phase::Identified(source, interfaces);
        Ok(())
    }

    fn take_relations<D: Destination<Error = E>>(
        &mut self,
        destination: &D,
        section: &Section,
    ) -> Result<(), RestoreError<E>> {
        let Phase::Identified(source, interfaces) = self.phase else {
            return Err(RestoreError::Incomplete(section.place()));
        };
        let payload = self.scratch.get(..Relations::LENGTH).unwrap_or_default();

        section.verify(Checksum::EMPTY.and(payload))?;
        let relations = Relations::accept(payload, interfaces, destination.interfaces())
            .map_err(malformed(section))?;

        self.progress.relations = Some(relations);
        self.phase = Phase::Established(Established::new(source, relations));
        Ok(())
    }

    fn take_address<D: Destination<Error = E>>(
        &mut self,
        destination: &mut D,
        section: &Section,
        bytes: Bytes,
    ) -> Result<(), RestoreError<E>> {
        let established = self.phase.established(section)?;

        section.verify(Checksum::EMPTY.and(&bytes))?;
        let part = established
            .addresses
            .accept(bytes, section.sequence, &established.source)
            .map_err(|invalid| section.invalid_part(invalid))?;

        established
            .clear(destination)
            .map_err(RestoreError::Device)?;
        self.progress.addresses.count(&part);
        match part.run() {
            Some(_) => established.part = Some(part),
            None => self.buffer.put_back(part),
        }
        Ok(())
    }

    fn take_run<D: Destination<Error = E>>(
        &mut self,
        destination: &mut D,
        section: &Section,
        run: Range,
        header: [u8; DataRun::LENGTH],
    ) -> Result<(), RestoreError<E>> {
        let malformed = malformed(section);
        let established = self.phase.established(section)?;
        let bytes = destination
            .buffer()
            .get(..run.length as usize)
            .unwrap_or_default();

        section.verify(Checksum::EMPTY.and(&header).and(bytes))?;
        let DataRun { offset } = DataRun::decode(&header).map_err(&malformed)?;
        check("offset", offset, Expectation::Equal(run.start)).map_err(malformed)?;
        destination
            .local()
            .ok_or(RestoreError::Buffer)?
            .write_local(offset, run.length as usize)
            .map_err(RestoreError::Device)?;
        self.progress.count_data(run.length);
        established.advance(&mut self.buffer);
        Ok(())
    }

    fn take_records<D: Destination<Error = E>>(
        &mut self,
        destination: &mut D,
        section: &Section,
        records: Bytes,
        header: [u8; ResourcesHeader::LENGTH],
    ) -> Result<(), RestoreError<E>> {
        let malformed = malformed(section);
        let established = self.phase.established(section)?;

        section.verify(Checksum::EMPTY.and(&header).and(&records))?;
        let header = ResourcesHeader::decode(&header).map_err(&malformed)?;
        header.validate(&records).map_err(&malformed)?;
        let table = Table::new(&records, destination.identity())
            .map_err(|invalid| section.invalid_record(Kind::Control, invalid))?;
        header.validate_count(&table).map_err(malformed)?;

        established
            .clear(destination)
            .map_err(RestoreError::Device)?;
        self.progress.records = table.summary();
        established.control = Some(records);
        Ok(())
    }

    fn take_claim<D: Destination<Error = E>>(
        &mut self,
        destination: &mut D,
        section: &Section,
        records: Bytes,
    ) -> Result<(), RestoreError<E>> {
        section.verify(Checksum::EMPTY.and(&records))?;
        Table::new(&records, destination.identity())
            .map_err(|invalid| section.invalid_record(Kind::Claim, invalid))?;
        destination
            .claim(&records)
            .map_err(RestoreError::Unobtainable)?;
        self.records = Some(records);
        Ok(())
    }

    fn take_end<D: Destination<Error = E>>(
        &mut self,
        destination: &mut D,
        section: &Section,
    ) -> Result<(), RestoreError<E>> {
        let expected = self.progress.totals(self.headers);
        let payload = self.scratch.get(..End::LENGTH).unwrap_or_default();
        let Some(records) = &self.phase.established(section)?.control else {
            return Err(RestoreError::Incomplete(section.place()));
        };

        section.verify(Checksum::EMPTY.and(payload))?;
        End::decode(payload)
            .and_then(|end| end.validate(&expected))
            .map_err(malformed(section))?;
        destination
            .prepare(records)
            .map_err(RestoreError::Unobtainable)
    }
}
