//! What one command may hold in memory on its way to its answer, or gather to be written.

use std::ops::ControlFlow;

use super::keyspace::{Keyspace, TypeError};

/// What an element costs beside its bytes: where it is, and what the allocator and a table take for it.
const ELEMENT_COST: usize = 64;

/// See the module's text. What would be past it is not taken, and refused at the end.
pub struct Allowance {
    max: usize,
    left: Option<usize>,
}

impl Keyspace<'_> {
    /// That of a command that begins now.
    pub fn allowance(&self) -> Allowance {
        Allowance { max: self.memory_max(), left: Some(self.memory_max()) }
    }
}

impl Allowance {
    /// Takes what an element of so many bytes needs; breaks when there is not so much left.
    pub fn take(&mut self, bytes: usize) -> ControlFlow<()> {
        self.left = self.left.and_then(|left| left.checked_sub(bytes.saturating_add(ELEMENT_COST)));
        if self.left.is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// An error if it was not enough.
    pub fn check(&self) -> Result<(), TypeError> {
        if self.left.is_some() { Ok(()) } else { Err(TypeError::TooMuch(self.max)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_too_much_stays_too_much() {
        let mut allowance = Allowance { max: 200, left: Some(200) };
        assert!(allowance.take(36).is_continue() && allowance.take(36).is_continue() && allowance.check().is_ok());
        assert!(allowance.take(0).is_break() && allowance.take(0).is_break());
        assert!(allowance.check().unwrap_err().to_string().contains("200 bytes"));
        let mut all = Allowance { max: usize::MAX, left: Some(usize::MAX) };
        assert!(all.take(1 << 40).is_continue());
    }
}
