//! Names for addresses of this process, from the symbols of its binary, which images keep. Line tables are not read: they take hundreds of
//! megabytes of memory, and a profile is wanted most when there is none.

use std::{collections::HashMap, ffi::c_void, fs, fs::File};

use backtrace::SymbolName;
use object::{Object as _, ObjectSymbol as _, ReadCache, SymbolKind};

/// A function of the binary: where it begins and ends, and its name as linkers write it.
struct Function {
    from: u64,
    to: u64,
    name: Vec<u8>,
}

/// Looks names up, each address once.
#[derive(Default)]
pub(super) struct Symbols {
    /// Sorted; read at the first question.
    functions: Option<Vec<Function>>,
    known: HashMap<usize, String>,
}

/// The allocator's own calls at the inner end of a stack, which is the same in every one.
const ALLOCATOR: [&str; 6] = ["prof_", "_rjem_", "je_", "imalloc", "ialloc", "arena_"];

impl Symbols {
    /// The name of the function at a return address; without one, the address.
    pub(super) fn at(&mut self, address: usize) -> &str {
        let functions = self.functions.get_or_insert_with(functions);
        self.known.entry(address).or_insert_with(|| own(functions, address).unwrap_or_else(|| foreign(address)))
    }

    /// The stack without the allocator's own calls at its inner end.
    pub(super) fn outside_allocator<'s>(&mut self, stack: &'s [usize]) -> &'s [usize] {
        let inner =
            stack.iter().take_while(|address| ALLOCATOR.iter().any(|prefix| self.at(**address).starts_with(prefix))).count();
        if inner == stack.len() { stack } else { &stack[inner..] }
    }
}

/// A name as a person writes it: without the hash at the end of Rust's.
fn readable(name: &[u8]) -> String {
    format!("{:#}", SymbolName::new(name))
}

fn own(functions: &[Function], address: usize) -> Option<String> {
    // The instruction before the one that is returned to: a call may be the last of its function.
    let called = (address as u64).saturating_sub(1);
    let behind = functions.partition_point(|function| function.from <= called);
    let function = functions[..behind].last().filter(|function| called < function.to)?;
    Some(readable(&function.name))
}

/// A function of a library: few, and small.
fn foreign(address: usize) -> String {
    let mut found = None;
    if !within_binary(address) {
        backtrace::resolve(address as *mut c_void, |symbol| {
            found = found.take().or(symbol.name().map(|name| format!("{name:#}")));
        });
    }
    found.unwrap_or_else(|| format!("{address:#x}"))
}

/// Where the system has put the binary: first and last address of each of its parts, and its offset in the file.
fn parts() -> Vec<(u64, u64, u64)> {
    let (maps, binary) =
        (fs::read_to_string("/proc/self/maps").unwrap_or_default(), fs::read_link("/proc/self/exe").unwrap_or_default());
    let own = maps.lines().filter(|line| line.ends_with(&*binary.to_string_lossy()));
    own.filter_map(|line| {
        let mut words = line.split_whitespace();
        let (range, offset) = (words.next()?, words.nth(1)?);
        let (from, to) = range.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        Some((hex(from)?, hex(to)?, hex(offset)?))
    })
    .collect()
}

fn within_binary(address: usize) -> bool {
    parts().iter().any(|(from, to, _)| (*from..*to).contains(&(address as u64)))
}

/// The functions of the binary at their addresses in this process; none when the file cannot be read.
fn functions() -> Vec<Function> {
    let Ok(file) = File::open("/proc/self/exe") else { return Vec::new() };
    let cache = ReadCache::new(file);
    let Ok(object) = object::File::parse(&cache) else { return Vec::new() };
    // Its first byte is at the address that the file calls 0, or where a binary that cannot be moved says.
    let bias = match (object.kind(), parts().first()) {
        (object::ObjectKind::Dynamic, Some((from, _, offset))) => from - offset,
        _ => 0,
    };
    let named =
        object.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0 && symbol.is_definition());
    let mut functions: Vec<Function> = named
        .filter_map(|symbol| {
            let from = symbol.address() + bias;
            Some(Function { from, to: from + symbol.size(), name: symbol.name_bytes().ok()?.to_vec() })
        })
        .collect();
    functions.sort_by_key(|function| function.from);
    functions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn a_function_with_a_name() -> usize {
        let mut address = 0;
        backtrace::trace(|frame| {
            let mut found = false;
            backtrace::resolve_frame(frame, |symbol| {
                found |= symbol.name().is_some_and(|name| format!("{name:#}").ends_with("a_function_with_a_name"));
            });
            address = frame.ip() as usize;
            !found
        });
        address
    }

    #[test]
    fn addresses_have_their_functions_names_and_what_is_nowhere_is_a_number() {
        let mut symbols = Symbols::default();
        let name = symbols.at(a_function_with_a_name()).to_owned();
        assert!(name.ends_with("memory::symbols::tests::a_function_with_a_name"), "{name}");
        assert_eq!(symbols.at(0x1234), "0x1234");
    }
}
