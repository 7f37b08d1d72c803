//! KPROFILE: heap profiles while the process runs, on the admin plane alone. The forms and replies are Kvrocks'; RESET and PPROF are ours.

use std::{path::PathBuf, sync::Arc};

use super::{CommandError, Later, LaterReply, run::ok_later, scan::offload, subcommands};
use crate::{
    memory::{self, ProfileError},
    node::Node,
    protocol::{ReplyWriter, Request},
};

impl From<ProfileError> for CommandError {
    fn from(error: ProfileError) -> Self {
        Self::new(format!("ERR {error}"))
    }
}

enum Wanted {
    Active(bool),
    Status,
    Dump(PathBuf),
    Reset,
    Pprof,
}

pub(super) fn kprofile(node: &Arc<Node>, request: &Request) -> Result<Later, CommandError> {
    if request[1].eq_ignore_ascii_case(b"help") {
        return Ok(Box::pin(async {
            Ok(Box::new(|reply: &mut ReplyWriter<'_>| subcommands::help(reply, "kprofile")) as LaterReply)
        }));
    }
    let wanted = parse(request)?;
    let limits = node.live.current().dump_limits();
    // Each of them takes the allocator's locks, or reads the binary's symbols: not on a thread that serves anybody.
    Ok(Box::pin(offload(move || match wanted {
        Wanted::Active(active) => memory::set_active(active).map(|()| ok_later()).map_err(CommandError::from),
        Wanted::Reset => memory::reset().map(|()| ok_later()).map_err(CommandError::from),
        Wanted::Dump(directory) => memory::dump(&directory, &limits).map(|_| ok_later()).map_err(CommandError::from),
        Wanted::Status => {
            let active = memory::is_active()?;
            Ok(Box::new(move |reply: &mut ReplyWriter<'_>| reply.simple(if active { "enabled" } else { "disabled" }))
                as LaterReply)
        }
        Wanted::Pprof => {
            let bytes = memory::heap_profile(&limits)?.to_pprof().map_err(ProfileError::from)?;
            Ok(Box::new(move |reply: &mut ReplyWriter<'_>| reply.bulk(&bytes)) as LaterReply)
        }
    })))
}

fn parse(request: &Request) -> Result<Wanted, CommandError> {
    if !request[1].eq_ignore_ascii_case(b"memory") {
        return Err(CommandError::new("ERR only supports MEMORY subcommand"));
    }
    let arity = || CommandError::new("ERR wrong number of arguments");
    let operation = request.get(2).ok_or_else(arity)?.to_ascii_lowercase();
    let wanted = match operation.as_slice() {
        b"enable" => Wanted::Active(true),
        b"disable" => Wanted::Active(false),
        b"status" => Wanted::Status,
        b"reset" => Wanted::Reset,
        b"pprof" => Wanted::Pprof,
        b"dump" => {
            let directory = request.get(3).ok_or_else(arity)?;
            let text = std::str::from_utf8(directory).map_err(|_| CommandError::new("ERR the directory's name is not UTF-8"))?;
            Wanted::Dump(text.into())
        }
        _ => return Err(CommandError::new("ERR MEMORY subcommand must be one of ENABLE, DISABLE, STATUS, DUMP, RESET, PPROF")),
    };
    let words = if matches!(wanted, Wanted::Dump(_)) { 4 } else { 3 };
    if request.len() == words { Ok(wanted) } else { Err(arity()) }
}
