//! Just enough of protobuf to be a cheap client: walks the fields of a message by skipping, never decodes a resource, and
//! writes requests. Knows the numbers of xDS's fields and nothing of streams.

/// The content of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    Bytes(&'a [u8]),
    Number(u64),
}

/// The fields of a message, in the order in which they were written; ends at what it cannot read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Field<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => Field::Bytes(self.take(8)?),
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(usize::try_from(len).ok()?)?)
            }
            5 => Field::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((key >> 3, field))
    }
}

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (at, byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
}

/// The first field of a number, if it is bytes.
pub(crate) fn bytes(message: &[u8], number: u64) -> Option<&[u8]> {
    Fields(message).find_map(|(it, field)| match field {
        Field::Bytes(bytes) if it == number => Some(bytes),
        _ => None,
    })
}

/// The first field of a number, if it is a varint.
pub(crate) fn number(message: &[u8], number: u64) -> Option<u64> {
    Fields(message).find_map(|(it, field)| match field {
        Field::Number(value) if it == number => Some(value),
        _ => None,
    })
}

/// Writes one length-delimited field.
pub(crate) fn put(number: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    let mut len = content.len();
    while len > 0x7f {
        out.push(len.to_le_bytes()[0] | 0x80);
        len >>= 7;
    }
    out.push(len.to_le_bytes()[0]);
    out.extend_from_slice(content);
}
