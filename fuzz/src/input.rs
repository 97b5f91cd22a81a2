//! An input with several parts.

/// The rest of an input.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    /// The next two bytes.
    pub fn number(&mut self) -> Option<usize> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(usize::from(u16::from_be_bytes(*number)))
    }

    /// The next section: two bytes with its length, then its bytes. It is shorter if the input
    /// ends.
    pub fn section(&mut self) -> Option<&'a [u8]> {
        let len = self.number()?.min(self.0.len());
        let (section, rest) = self.0.split_at(len);
        self.0 = rest;
        Some(section)
    }
}

/// These bytes as a [section](Input::section).
#[must_use]
pub fn section(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&len.to_be_bytes(), &bytes[..usize::from(len)]].concat()
}
