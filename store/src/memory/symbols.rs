//! Names for addresses of this process, from the symbols of its binary, which images keep, and of its libraries. Line tables are not read:
//! they take hundreds of megabytes of memory, and a profile is wanted most when there is none.

use std::{collections::HashMap, fs, fs::File};

use backtrace::SymbolName;
use object::{Object as _, ObjectSymbol as _, ReadCache, SymbolKind};

/// A function: where it begins and ends in this process, and its name as linkers write it.
struct Function {
    from: u64,
    to: u64,
    name: Vec<u8>,
}

/// A part of a file that is mapped into the process.
struct Part {
    from: u64,
    to: u64,
    offset: u64,
    path: String,
}

/// Looks names up, each address once.
#[derive(Default)]
pub(super) struct Symbols {
    parts: Option<Vec<Part>>,
    /// By the paths of files, sorted by their addresses; each read at the first question.
    functions: HashMap<String, Vec<Function>>,
    known: HashMap<usize, String>,
}

/// The allocator's own calls at the inner end of a stack, which is the same in every one.
const ALLOCATOR: [&str; 6] = ["prof_", "_rjem_", "je_", "imalloc", "ialloc", "arena_"];

impl Symbols {
    /// The name of the function at a return address; without one, the address.
    pub(super) fn at(&mut self, address: usize) -> &str {
        if !self.known.contains_key(&address) {
            // The instruction before the one that is returned to: a call may be the last of its function.
            let name = self.find((address as u64).saturating_sub(1)).unwrap_or_else(|| format!("{address:#x}"));
            self.known.insert(address, name);
        }
        &self.known[&address]
    }

    fn find(&mut self, called: u64) -> Option<String> {
        let parts = self.parts.get_or_insert_with(parts);
        let part = parts.iter().find(|part| (part.from..part.to).contains(&called))?;
        let first = parts.iter().find(|other| other.path == part.path)?;
        let functions = self.functions.entry(part.path.clone()).or_insert_with(|| functions(first));
        let behind = functions.partition_point(|function| function.from <= called);
        let function = functions[..behind].last().filter(|function| called < function.to)?;
        // As a person writes it: without the hash at the end of Rust's.
        Some(format!("{:#}", SymbolName::new(&function.name)))
    }

    /// The stack without the allocator's own calls at its inner end.
    pub(super) fn outside_allocator<'s>(&mut self, stack: &'s [usize]) -> &'s [usize] {
        let inner =
            stack.iter().take_while(|address| ALLOCATOR.iter().any(|prefix| self.at(**address).starts_with(prefix))).count();
        if inner == stack.len() { stack } else { &stack[inner..] }
    }
}

/// The files that are mapped, and where.
fn parts() -> Vec<Part> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let part = |line: &str| {
        let mut words = line.split_whitespace();
        let (range, offset) = (words.next()?, words.nth(1)?);
        let path = words.nth(2).filter(|path| path.starts_with('/'))?;
        let (from, to) = range.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        Some(Part { from: hex(from)?, to: hex(to)?, offset: hex(offset)?, path: path.to_owned() })
    };
    maps.lines().filter_map(part).collect()
}

/// The functions of a file at their addresses in this process, which the first part of it gives; none when it cannot be read.
fn functions(first: &Part) -> Vec<Function> {
    // Ours may have been replaced since it was started.
    let own = fs::read_link("/proc/self/exe").is_ok_and(|path| path.to_string_lossy().starts_with(&first.path));
    let Ok(file) = File::open(if own { "/proc/self/exe" } else { &first.path }) else { return Vec::new() };
    let cache = ReadCache::new(file);
    let Ok(object) = object::File::parse(&cache) else { return Vec::new() };
    // Its first byte is at the address that the file calls 0, or where a binary that cannot be moved says.
    let bias = if object.kind() == object::ObjectKind::Dynamic { first.from - first.offset } else { 0 };
    let all = object.symbols().chain(object.dynamic_symbols());
    let named = all.filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0 && symbol.is_definition());
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
        // What calls a thread's first function is the system's library, which names what it exports alone.
        let outermost = std::thread::spawn(|| {
            let mut addresses = Vec::new();
            backtrace::trace(|frame| {
                addresses.push(frame.ip() as usize);
                true
            });
            addresses
        });
        let names: Vec<String> = outermost.join().unwrap().iter().map(|address| symbols.at(*address).to_owned()).collect();
        let unnamed = names.iter().filter(|name| name.starts_with("0x")).count();
        assert!(unnamed <= 3 && names.iter().any(|name| name.contains("thread_start")), "{names:?}");
    }
}
