// SPDX-License-Identifier: GPL-2.0

//! Tests of requests and answers.

use proptest::prelude::*;

use super::strategy::message;
use crate::backend::igb::portable::mailbox::message::{Answer, Mac, Multicast, Request, Vid};

fn decode(words: &[u32]) -> Request {
    let mut buffer = [0; 16];

    buffer[..words.len()].copy_from_slice(words);
    Request::decode(&buffer)
}

proptest! {
    /// A decoded and encoded request is the same request.
    #[test]
    fn requests_are_repeated(words in message()) {
        let request = decode(&words);
        if request != Request::Other {
            prop_assert_eq!(Request::decode(&request.encode()), request);
        }
    }

    #[test]
    fn any_words_are_decoded(words in any::<[u32; 16]>(), answer in any::<u32>()) {
        Request::decode(&words);
        Answer::decode(words[0], answer);
    }
}

/// The encoding is that of `igbvf`.
#[test]
fn words() {
    let mac = Mac::new([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]).unwrap();
    let mut hashes = [0; 30];
    hashes[..3].copy_from_slice(&[0x123, 0x456, 0x789]);
    let vid = Vid::new(0x5ab).unwrap();

    for (words, request) in [
        (vec![1], Request::Reset),
        (vec![0x0000_0002, 0x3322_1102, 0x5544], Request::SetMac(mac)),
        (vec![0x0001_0002, 0x2], Request::ClearUnicast),
        (
            vec![0x0002_0002, 0x3322_1102, 0x5544],
            Request::AddUnicast(mac),
        ),
        (
            vec![0x0003_0003, 0x0456_0123, 0x0000_0789],
            Request::SetMulticast(Multicast::new(3, hashes)),
        ),
        (vec![0x0001_0004, 0x5ab], Request::AddVlan(vid)),
        (vec![0x0000_0004, 0x5ab], Request::RemoveVlan(vid)),
        (vec![5, 9018], Request::SetFrameSize(9018)),
        (
            vec![0x0002_0006],
            Request::SetPromiscuous { multicast: true },
        ),
        (
            vec![0x0000_0006],
            Request::SetPromiscuous { multicast: false },
        ),
    ] {
        assert_eq!(decode(&words), request);
        assert_eq!(request.encode()[..words.len()], words);
    }
}

#[test]
fn requests_that_change_nothing() {
    for words in [
        vec![0],
        vec![7],
        vec![0x100],
        vec![0x8000_0001],
        vec![0x4000_0003],
        vec![0x0001_0001],
        vec![2, 0, 0],
        vec![2, 0x0000_0001, 0],
        vec![0x0003_0002, 0x2, 0],
    ] {
        assert_eq!(decode(&words), Request::Other, "{words:x?}");
    }
}

/// `igb` uses a signed comparison, and limits the frame size to its maximum.
#[test]
fn frame_sizes() {
    for (word, bytes) in [
        (1522, 1522),
        (0x3f00, 0x3f00),
        (0x3f01, 0x3f00),
        (0x7fff_ffff, 0x3f00),
        (0x8000_05f2, 0x5f2),
        (0xffff_ffff, 0x3f00),
    ] {
        assert_eq!(
            decode(&[5, word]),
            Request::SetFrameSize(bytes),
            "{word:#x}"
        );
    }
}

#[test]
fn answers() {
    for (request, answer, expected) in [
        (1, 0x8000_0001, Answer::Done),
        (1, 0x4000_0001, Answer::Done),
        (1, 0x0000_0001, Answer::None),
        (0x0001_0004, 0xa001_0004, Answer::Done),
        (0x0001_0004, 0x6001_0004, Answer::Refused),
        (0x0001_0004, 0x4001_0004, Answer::NotClearToSend),
        (0x0001_0004, 0x2000_0100, Answer::Overwritten),
        (0x0001_0004, 0x0000_0100, Answer::NotClearToSend),
        (0x0001_0004, 0x4000_0000, Answer::NotClearToSend),
        // The answer lacks a bit of the request.
        (0x0003_0006, 0x6001_0006, Answer::Refused),
    ] {
        assert_eq!(
            Answer::decode(request, answer),
            expected,
            "{request:#x} {answer:#x}"
        );
    }
}
