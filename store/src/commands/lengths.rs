//! Lengths of what becomes part of a key in storage: fields and members, as long as a key may be.

use super::{CommandError, Context};

/// A member of a set or sorted set.
pub(super) fn check_member(cx: &Context<'_, '_>, member: &[u8]) -> Result<(), CommandError> {
    check(cx, member, "member")
}

/// A part of a key, of which the error says what it is.
pub(super) fn check(cx: &Context<'_, '_>, part: &[u8], what: &str) -> Result<(), CommandError> {
    let len_max = cx.node.settings.key_size_max.0 as usize;
    if part.len() > len_max {
        let length = part.len();
        return Err(CommandError::new(format!(
            "ERR the {what} has {length} bytes, at most {len_max} are allowed (key-size-max)"
        )));
    }
    Ok(())
}

/// Several of them.
pub(super) fn check_members(cx: &Context<'_, '_>, members: &[&[u8]]) -> Result<(), CommandError> {
    members.iter().try_for_each(|member| check_member(cx, member))
}
