//! Shifting of TCP sequence numbers, for conns whose two sides count differently.

use crate::wire::{Delta, TcpView, tcp};

/// How the numbers of a segment are shifted, modulo 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeqShift {
    /// Added to the sequence number.
    pub(crate) seq: u32,
    /// Added to the acknowledgment number and to the edges of SACK blocks.
    pub(crate) ack: u32,
}

impl SeqShift {
    /// Shifts a segment; returns what its checksum changes by. `segment` is the contiguous head of a TCP
    /// segment whose header length was checked.
    pub(crate) fn apply(&self, segment: &mut [u8], delta: Delta) -> Delta {
        let mut view = TcpView::new_unchecked(segment);
        let mut delta = delta;
        let seq = view.seq();
        view.set_seq(seq.wrapping_add(self.seq));
        delta = delta.replace_u32(seq, seq.wrapping_add(self.seq));
        if !view.flags().contains(crate::wire::TcpFlags::ACK) {
            // The field means nothing without the flag; a RST without ACK carries zero there.
            return delta;
        }
        let ack = view.ack();
        view.set_ack(ack.wrapping_add(self.ack));
        delta = delta.replace_u32(ack, ack.wrapping_add(self.ack));
        let header_len = view.header_len();
        match view.into_inner().get_mut(tcp::HEADER_LEN..header_len) {
            Some(options) => self.shift_sack(options, delta),
            None => delta,
        }
    }

    /// Shifts the edges of SACK blocks (RFC 2018, section 3) wherever they lie: an option may begin at an
    /// odd offset, where a word of the checksum straddles two fields.
    fn shift_sack(&self, options: &mut [u8], mut delta: Delta) -> Delta {
        const END: u8 = 0;
        const NOP: u8 = 1;
        const SACK: u8 = 5;
        let mut at = 0;
        while at < options.len() {
            let len = match options[at] {
                END => break,
                NOP => 1,
                _ => match options.get(at + 1) {
                    Some(&n) if n >= 2 && at + usize::from(n) <= options.len() => usize::from(n),
                    _ => break,
                },
            };
            if options[at] == SACK {
                for edge in options[at + 2..at + len].as_chunks_mut::<4>().0 {
                    let old = u32::from_be_bytes(*edge);
                    let new = old.wrapping_add(self.ack);
                    *edge = new.to_be_bytes();
                    // At an odd offset every byte weighs as its neighbour would: swap them.
                    let (o, n) = if at % 2 == 0 {
                        (old, new)
                    } else {
                        (old.rotate_left(8), new.rotate_left(8))
                    };
                    delta = delta.replace_u32(o, n);
                }
            }
            at += len;
        }
        delta
    }
}
