//! What goes between a lease service and its clients: a request and a reply in a datagram each.
//!
//! ```text
//! request: 'q' | client 4 | number 4 | life 8 | kind 1 | ..
//! reply:   'r' | number 4 | life 8 | revision 8 | kind 1 | ..
//! ```
//!
//! Integers are big-endian; bytes have their length (2) in front. A reader takes nothing that is too long, cut, or has more
//! behind it.

use std::time::Duration;

use super::{Change, Event, Item, KEY_LEN_MAX, LeaseId, StoreError, VALUE_LEN_MAX};

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks: each client's own number.
    pub client: u32,
    /// Grows with each request of a client that is not a copy of an earlier one. A copy gets the same reply.
    pub number: u32,
    /// The life of the service of which the client knows: it is that of a connection. After a restart it is another one, and a
    /// client that was not answered does not know whether its request was carried out.
    pub life: u64,
    /// What.
    pub body: RequestBody,
}

/// See [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// Nothing: which life is it?
    Hello,
    /// A lease with a time to live.
    Grant(LeaseId, Duration),
    /// Its whole time anew.
    KeepAlive(LeaseId),
    /// Its end.
    Revoke(LeaseId),
    /// What is left of it?
    TimeLeft(LeaseId),
    /// A key.
    Get(Vec<u8>),
    /// A change of a key, if it was changed last at this revision.
    Transact(Vec<u8>, Option<u64>, Change),
    /// Changes up to a revision are forgotten.
    Compact(u64),
    /// Changes of keys with a prefix are told from now on: from a revision, of which so many are known already. The next
    /// watch of a client takes the place of the last one, and confirms what it told.
    Watch(Vec<u8>, u64, u32),
}

/// What a service answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The request's number.
    pub number: u32,
    /// The life of the service.
    pub life: u64,
    /// Its revision.
    pub revision: u64,
    /// What came of it.
    pub body: ReplyBody,
}

/// See [`Reply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyBody {
    /// It is done.
    Done,
    /// The request names another life: nothing was done.
    OtherLife,
    /// The time of a lease, or what is left of it.
    Time(Duration),
    /// A key as it is.
    Item(Option<Item>),
    /// Whether a transaction was carried out, and its key as it is.
    Transacted(bool, Option<Item>),
    /// Changes, and where the next watch begins: the revision, and how many of it are known.
    Events(Vec<Event>, u64, u32),
    /// It is refused.
    Refused(StoreError),
}

/// Writes integers and bytes.
struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, n: u8) -> &mut Self {
        self.0.push(n);
        self
    }

    fn u32(&mut self, n: u32) -> &mut Self {
        self.0.extend(n.to_be_bytes());
        self
    }

    fn u64(&mut self, n: u64) -> &mut Self {
        self.0.extend(n.to_be_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend((bytes.len() as u16).to_be_bytes());
        self.0.extend(bytes);
        self
    }

    fn item(&mut self, item: Option<&Item>) -> &mut Self {
        let Some(item) = item else { return self.u8(0) };
        let numbers = [item.create_revision, item.mod_revision, item.version];
        self.u8(1);
        for n in numbers {
            self.u64(n);
        }
        self.u64(item.lease.map_or(0, |id| id.0)).bytes(&item.value)
    }
}

/// Reads what [`Writer`] writes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(*self.take(4)?.first_chunk()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(*self.take(8)?.first_chunk()?))
    }

    fn bytes(&mut self, max: usize) -> Option<Vec<u8>> {
        let len = usize::from(u16::from_be_bytes(*self.take(2)?.first_chunk()?));
        (len <= max).then(|| self.take(len).map(<[u8]>::to_vec))?
    }

    fn lease(&mut self) -> Option<LeaseId> {
        self.u64().map(LeaseId)
    }

    /// Milliseconds that fit into a span of nanoseconds.
    fn span(&mut self) -> Option<Duration> {
        let ms = self.u64()?;
        (ms <= 1 << 40).then(|| Duration::from_millis(ms))
    }

    fn item(&mut self) -> Option<Option<Item>> {
        if self.u8()? == 0 {
            return Some(None);
        }
        let [create_revision, mod_revision, version, lease] =
            [self.u64()?, self.u64()?, self.u64()?, self.u64()?];
        Some(Some(Item {
            create_revision,
            mod_revision,
            version,
            lease: (lease > 0).then_some(LeaseId(lease)),
            value: self.bytes(VALUE_LEN_MAX)?,
        }))
    }

    /// `value`, if nothing is left.
    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Request {
    /// As bytes.
    pub fn emit(&self) -> Vec<u8> {
        let mut w = Writer(vec![b'q']);
        w.u32(self.client).u32(self.number).u64(self.life);
        match &self.body {
            RequestBody::Hello => w.u8(0),
            RequestBody::Grant(id, ttl) => w.u8(1).u64(id.0).u64(ms(*ttl)),
            RequestBody::KeepAlive(id) => w.u8(2).u64(id.0),
            RequestBody::Revoke(id) => w.u8(3).u64(id.0),
            RequestBody::TimeLeft(id) => w.u8(4).u64(id.0),
            RequestBody::Get(key) => w.u8(5).bytes(key),
            RequestBody::Transact(key, at, change) => {
                w.u8(6).bytes(key);
                match at {
                    Some(at) => w.u8(1).u64(*at),
                    None => w.u8(0),
                };
                match change {
                    Change::Put(value, lease) => w.u8(1).u64(lease.map_or(0, |id| id.0)).bytes(value),
                    Change::Delete => w.u8(0),
                }
            }
            RequestBody::Compact(revision) => w.u8(7).u64(*revision),
            RequestBody::Watch(prefix, from, known) => w.u8(8).bytes(prefix).u64(*from).u32(*known),
        };
        w.0
    }

    /// Of bytes; `None`: they are none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        (r.u8()? == b'q').then_some(())?;
        let (client, number, life) = (r.u32()?, r.u32()?, r.u64()?);
        let body = match r.u8()? {
            0 => RequestBody::Hello,
            1 => RequestBody::Grant(r.lease()?, r.span()?),
            2 => RequestBody::KeepAlive(r.lease()?),
            3 => RequestBody::Revoke(r.lease()?),
            4 => RequestBody::TimeLeft(r.lease()?),
            5 => RequestBody::Get(r.bytes(KEY_LEN_MAX)?),
            6 => {
                let key = r.bytes(KEY_LEN_MAX)?;
                let at = match r.u8()? {
                    0 => None,
                    _ => Some(r.u64()?),
                };
                let change = match r.u8()? {
                    0 => Change::Delete,
                    _ => {
                        let lease = r.lease()?;
                        Change::Put(r.bytes(VALUE_LEN_MAX)?, (lease.0 > 0).then_some(lease))
                    }
                };
                RequestBody::Transact(key, at, change)
            }
            7 => RequestBody::Compact(r.u64()?),
            8 => RequestBody::Watch(r.bytes(KEY_LEN_MAX)?, r.u64()?, r.u32()?),
            _ => return None,
        };
        r.end(Request {
            client,
            number,
            life,
            body,
        })
    }
}

/// Errors as they are written; what a compaction forgot stands behind.
const ERRORS: [StoreError; 6] = [
    StoreError::NoLease,
    StoreError::LeaseExists,
    StoreError::BadLease,
    StoreError::TooLong,
    StoreError::Full,
    StoreError::Future,
];
const COMPACTED: u8 = ERRORS.len() as u8;

/// Bytes of an event in a reply.
pub(super) fn event_len(event: &Event) -> usize {
    8 + 2 + event.key.len() + 1 + event.value.as_ref().map_or(0, |v| 2 + v.len())
}

/// Bytes of a reply with events, without these.
pub(super) const EVENTS_HEAD_LEN: usize = 1 + 4 + 8 + 8 + 1 + 8 + 4 + 4;

impl Reply {
    /// As bytes.
    pub fn emit(&self) -> Vec<u8> {
        let mut w = Writer(vec![b'r']);
        w.u32(self.number).u64(self.life).u64(self.revision);
        match &self.body {
            ReplyBody::Done => w.u8(0),
            ReplyBody::OtherLife => w.u8(1),
            ReplyBody::Time(span) => w.u8(2).u64(ms(*span)),
            ReplyBody::Item(item) => w.u8(3).item(item.as_ref()),
            ReplyBody::Transacted(done, item) => w.u8(4).u8(u8::from(*done)).item(item.as_ref()),
            ReplyBody::Events(events, next, known) => {
                w.u8(5).u64(*next).u32(*known).u32(events.len() as u32);
                for event in events {
                    w.u64(event.revision).bytes(&event.key);
                    match &event.value {
                        Some(value) => w.u8(1).bytes(value),
                        None => w.u8(0),
                    };
                }
                &mut w
            }
            ReplyBody::Refused(StoreError::Compacted(revision)) => w.u8(6).u8(COMPACTED).u64(*revision),
            ReplyBody::Refused(error) => {
                let number = ERRORS.iter().position(|e| e == error).unwrap_or(0);
                w.u8(6).u8(number as u8)
            }
        };
        w.0
    }

    /// Of bytes; `None`: they are none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        (r.u8()? == b'r').then_some(())?;
        let (number, life, revision) = (r.u32()?, r.u64()?, r.u64()?);
        let body = match r.u8()? {
            0 => ReplyBody::Done,
            1 => ReplyBody::OtherLife,
            2 => ReplyBody::Time(r.span()?),
            3 => ReplyBody::Item(r.item()?),
            4 => ReplyBody::Transacted(r.u8()? != 0, r.item()?),
            5 => {
                let (next, known, count) = (r.u64()?, r.u32()?, r.u32()?);
                let mut events = Vec::new();
                // Each has eleven bytes at least: a count that is too large ends the reading.
                for _ in 0..count {
                    let (revision, key) = (r.u64()?, r.bytes(KEY_LEN_MAX)?);
                    let value = match r.u8()? {
                        0 => None,
                        _ => Some(r.bytes(VALUE_LEN_MAX)?),
                    };
                    events.push(Event { revision, key, value });
                }
                ReplyBody::Events(events, next, known)
            }
            6 => match r.u8()? {
                COMPACTED => ReplyBody::Refused(StoreError::Compacted(r.u64()?)),
                n => ReplyBody::Refused(*ERRORS.get(usize::from(n))?),
            },
            _ => return None,
        };
        r.end(Reply {
            number,
            life,
            revision,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<RequestBody> {
        let key = vec![7; KEY_LEN_MAX];
        vec![
            RequestBody::Hello,
            RequestBody::Grant(LeaseId(9), Duration::from_millis(1_500)),
            RequestBody::KeepAlive(LeaseId(9)),
            RequestBody::Revoke(LeaseId(u64::MAX)),
            RequestBody::TimeLeft(LeaseId(1)),
            RequestBody::Get(key.clone()),
            RequestBody::Transact(
                key.clone(),
                Some(3),
                Change::Put(vec![1; VALUE_LEN_MAX], Some(LeaseId(2))),
            ),
            RequestBody::Transact(key.clone(), None, Change::Put(vec![], None)),
            RequestBody::Transact(key.clone(), Some(0), Change::Delete),
            RequestBody::Compact(12),
            RequestBody::Watch(key, 5, 2),
        ]
    }

    fn replies() -> Vec<ReplyBody> {
        let item = Item {
            create_revision: 1,
            mod_revision: 2,
            version: 3,
            value: vec![9; VALUE_LEN_MAX],
            lease: Some(LeaseId(4)),
        };
        let event = |value| Event {
            revision: 8,
            key: b"key".to_vec(),
            value,
        };
        let refused = ERRORS
            .into_iter()
            .chain([StoreError::Compacted(77)])
            .map(ReplyBody::Refused);
        let others = vec![
            ReplyBody::Done,
            ReplyBody::OtherLife,
            ReplyBody::Time(Duration::from_millis(3)),
            ReplyBody::Item(None),
            ReplyBody::Item(Some(item.clone())),
            ReplyBody::Transacted(true, Some(item)),
            ReplyBody::Transacted(false, None),
            ReplyBody::Events(vec![event(None), event(Some(vec![1, 2]))], 9, 1),
        ];
        refused.chain(others).collect()
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let mut cut = 0;
        for body in requests() {
            let request = Request {
                client: 1,
                number: 2,
                life: 3,
                body,
            };
            let bytes = request.emit();
            assert_eq!(Request::parse(&bytes).as_ref(), Some(&request));
            for len in 0..bytes.len() {
                assert_eq!(Request::parse(&bytes[..len]), None, "{request:?} cut at {len}");
                cut += 1;
            }
            assert_eq!(Request::parse(&[&bytes[..], &[0]].concat()), None);
            assert_eq!(Reply::parse(&bytes), None);
        }
        for body in replies() {
            let reply = Reply {
                number: 2,
                life: 3,
                revision: 4,
                body,
            };
            let bytes = reply.emit();
            assert_eq!(Reply::parse(&bytes).as_ref(), Some(&reply));
            for len in 0..bytes.len() {
                assert_eq!(Reply::parse(&bytes[..len]), None, "{reply:?} cut at {len}");
            }
            if let ReplyBody::Events(events, ..) = &reply.body {
                let all: usize = events.iter().map(event_len).sum();
                assert_eq!(bytes.len(), EVENTS_HEAD_LEN + all);
            }
        }
        assert!(cut > 300);
    }
}
