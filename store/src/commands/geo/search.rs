//! Searching for places in an area: GEOSEARCH, GEOSEARCHSTORE, GEORADIUS and GEORADIUSBYMEMBER.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::{Outcome, place, unit, write_distance, write_place};
use crate::{
    commands::{Class, CommandError, Context, numbers},
    protocol::Request,
    types::{
        Allowance, ScoreRange, Selection, SortedSet,
        geo::{Place, Shape, boxes},
        parse_integer,
    },
};

/// Which of the commands it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// GEORADIUS; with STORE or without.
    Around {
        may_store: bool,
    },
    /// GEORADIUSBYMEMBER; with STORE or without.
    AroundMember {
        may_store: bool,
    },
    Search,
    SearchStore,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
}

/// What is asked for.
#[derive(Default)]
struct Asked<'q> {
    /// `None` with `from` said: the member is of a key that is not there.
    centre: Option<Place>,
    from: bool,
    shape: Option<Shape>,
    /// Metres of the unit of distances.
    unit_m: f64,
    distances: bool,
    scores: bool,
    places: bool,
    count: u64,
    any: bool,
    order: Option<Order>,
    store: Option<&'q [u8]>,
    store_distances: bool,
}

struct Found {
    member: Vec<u8>,
    score: f64,
    place: Place,
    /// In the unit that was asked for.
    distance: f64,
}

pub(in crate::commands) fn georadius(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    search(cx, request, Form::Around { may_store: true })
}

pub(in crate::commands) fn georadius_ro(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    search(cx, request, Form::Around { may_store: false })
}

pub(in crate::commands) fn georadiusbymember(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    search(cx, request, Form::AroundMember { may_store: true })
}

pub(in crate::commands) fn georadiusbymember_ro(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    search(cx, request, Form::AroundMember { may_store: false })
}

pub(in crate::commands) fn geosearch(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    search(cx, request, Form::Search)
}

pub(in crate::commands) fn geosearchstore(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    search(cx, request, Form::SearchStore)
}

fn search(cx: &mut Context<'_, '_>, request: &Request, form: Form) -> Outcome {
    let (source, words) = match form {
        Form::SearchStore => (&request[2], &request[3..]),
        _ => (&request[1], &request[2..]),
    };
    let set = cx.keyspace().sorted_set(source)?;
    let mut asked = match form {
        Form::Around { .. } => {
            let centre = place(&words[0], &words[1])?;
            let (radius_m, unit_m) = radius(&words[2], &words[3])?;
            let asked =
                Asked { centre: Some(centre), from: true, shape: Some(Shape::Circle { radius_m }), unit_m, ..Asked::default() };
            options(&words[4..], set.as_ref(), form, asked)?
        }
        Form::AroundMember { .. } => {
            let mut asked = Asked { from: true, shape: Some(Shape::Circle { radius_m: 0.0 }), unit_m: 1.0, ..Asked::default() };
            if let Some(set) = &set {
                asked.centre = Some(place_of(set, &words[0])?);
                let (radius_m, unit_m) = radius(&words[1], &words[2])?;
                (asked.shape, asked.unit_m) = (Some(Shape::Circle { radius_m }), unit_m);
            }
            options(&words[3..], set.as_ref(), form, asked)?
        }
        Form::Search => options(words, set.as_ref(), form, Asked { unit_m: 1.0, ..Asked::default() })?,
        Form::SearchStore => {
            let asked = Asked { unit_m: 1.0, store: Some(&request[1]), ..Asked::default() };
            options(words, set.as_ref(), form, asked)?
        }
    };
    let shape = check(&asked, &request[0], form)?;
    if asked.count > 0 && asked.order.is_none() && !asked.any {
        asked.order = Some(Order::Ascending);
    }
    let found = match (set, asked.centre) {
        (Some(set), Some(centre)) => find(&set, centre, &shape, &asked, cx.keyspace().allowance())?,
        _ => Vec::new(),
    };
    match asked.store {
        Some(into) => store(cx, into, &asked, found, form),
        None => {
            answer(cx, &asked, &found);
            Ok(())
        }
    }
}

fn place_of(set: &SortedSet<'_>, member: &[u8]) -> Result<Place, CommandError> {
    let score = set.score(member)?.ok_or_else(|| CommandError::new("ERR could not decode requested zset member"))?;
    Ok(Place::of_score(score))
}

/// A distance in metres, and metres of its unit.
fn radius(distance: &[u8], unit_word: &[u8]) -> Result<(f64, f64), CommandError> {
    let distance = numbers::float(distance, "ERR need numeric radius")?;
    if distance < 0.0 {
        return Err(CommandError::new("ERR radius cannot be negative"));
    }
    let unit_m = unit(unit_word)?;
    Ok((distance * unit_m, unit_m))
}

fn options<'q>(
    words: &'q [Bytes],
    set: Option<&SortedSet<'_>>,
    form: Form,
    mut asked: Asked<'q>,
) -> Result<Asked<'q>, CommandError> {
    let is_search = matches!(form, Form::Search | Form::SearchStore);
    let may_store = matches!(form, Form::Around { may_store: true } | Form::AroundMember { may_store: true });
    let (mut located, mut circle, mut rest) = (false, false, words);
    while let Some((word, behind)) = rest.split_first() {
        let taken = match (word.to_ascii_lowercase().as_slice(), behind) {
            (b"withdist", _) => {
                asked.distances = true;
                0
            }
            (b"withhash", _) => {
                asked.scores = true;
                0
            }
            (b"withcoord", _) => {
                asked.places = true;
                0
            }
            (b"any", _) => {
                asked.any = true;
                0
            }
            (b"asc", _) => {
                asked.order = Some(Order::Ascending);
                0
            }
            (b"desc", _) => {
                asked.order = Some(Order::Descending);
                0
            }
            (b"count", [count, ..]) => {
                let count = parse_integer(count)?;
                asked.count = u64::try_from(count)
                    .ok()
                    .filter(|count| *count > 0)
                    .ok_or_else(|| CommandError::new("ERR COUNT must be > 0"))?;
                1
            }
            (name @ (b"store" | b"storedist"), [into, ..]) if may_store => {
                asked.store = Some(into);
                asked.store_distances = name == b"storedist";
                1
            }
            (b"storedist", _) if form == Form::SearchStore => {
                asked.store_distances = true;
                0
            }
            (b"frommember", [member, ..]) if is_search && !located => {
                asked.from = true;
                asked.centre = set.map(|set| place_of(set, member)).transpose()?;
                1
            }
            (b"fromlonlat", [longitude, latitude, ..]) if is_search && (located || !asked.from) => {
                asked.centre = Some(place(longitude, latitude)?);
                (asked.from, located) = (true, true);
                2
            }
            (b"byradius", [distance, word, ..]) if is_search && (circle || asked.shape.is_none()) => {
                let (radius_m, unit_m) = radius(distance, word)?;
                (asked.shape, asked.unit_m) = (Some(Shape::Circle { radius_m }), unit_m);
                circle = true;
                2
            }
            (b"bybox", [width, height, word, ..]) if is_search && !circle => {
                let width = numbers::float(width, "ERR need numeric width")?;
                let height = numbers::float(height, "ERR need numeric height")?;
                if width < 0.0 || height < 0.0 {
                    return Err(CommandError::new("ERR height or width cannot be negative"));
                }
                asked.unit_m = unit(word)?;
                asked.shape = Some(Shape::Box { width_m: width * asked.unit_m, height_m: height * asked.unit_m });
                3
            }
            _ => return Err(CommandError::syntax()),
        };
        rest = &behind[taken..];
    }
    Ok(asked)
}

/// What does not go together.
fn check(asked: &Asked<'_>, name: &[u8], form: Form) -> Result<Shape, CommandError> {
    if asked.store.is_some() && (asked.distances || asked.scores || asked.places) {
        let who = if form == Form::SearchStore { "GEOSEARCHSTORE" } else { "STORE option in GEORADIUS" };
        return Err(CommandError::new(format!("ERR {who} is not compatible with WITHDIST, WITHHASH and WITHCOORD options")));
    }
    let name = String::from_utf8_lossy(name);
    if !asked.from {
        return Err(CommandError::new(format!("ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {name}")));
    }
    let shape = asked
        .shape
        .ok_or_else(|| CommandError::new(format!("ERR exactly one of BYRADIUS and BYBOX can be specified for {name}")))?;
    if asked.any && asked.count == 0 {
        return Err(CommandError::new("ERR the ANY argument requires COUNT argument"));
    }
    Ok(shape)
}

/// The places of an area, in the order that was asked for and as many. Goes over nine ranges of scores at most.
fn find(
    set: &SortedSet<'_>,
    centre: Place,
    shape: &Shape,
    asked: &Asked<'_>,
    mut allowance: Allowance,
) -> Result<Vec<Found>, CommandError> {
    let mut found = Vec::new();
    let enough = if asked.any { asked.count } else { u64::MAX };
    for (from, to) in boxes(centre, shape) {
        if found.len() as u64 >= enough {
            break;
        }
        let range = ScoreRange { min: Bound::Included(from), max: Bound::Excluded(to) };
        set.each(&Selection::Score(range), false, None, |member, score| {
            let place = Place::of_score(score);
            if let Some(distance) = shape.distance_m(centre, place) {
                found.push(Found { member: member.to_vec(), score, place, distance: distance / asked.unit_m });
                allowance.take(member.len())?;
            }
            if found.len() as u64 >= enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    }
    allowance.check()?;
    match asked.order {
        Some(Order::Ascending) => found.sort_by(|one, other| one.distance.total_cmp(&other.distance)),
        Some(Order::Descending) => found.sort_by(|one, other| other.distance.total_cmp(&one.distance)),
        None => {}
    }
    if asked.count > 0 {
        found.truncate(usize::try_from(asked.count).unwrap_or(usize::MAX));
    }
    Ok(found)
}

fn answer(cx: &mut Context<'_, '_>, asked: &Asked<'_>, found: &[Found]) {
    let extras = usize::from(asked.distances) + usize::from(asked.scores) + usize::from(asked.places);
    cx.reply.array(found.len());
    for found in found {
        if extras > 0 {
            cx.reply.array(1 + extras);
        }
        cx.reply.bulk(&found.member);
        if asked.distances {
            write_distance(cx.reply, found.distance);
        }
        if asked.scores {
            cx.reply.integer(found.score as i64);
        }
        if asked.places {
            write_place(cx.reply, found.place);
        }
    }
}

fn store(cx: &mut Context<'_, '_>, into: &[u8], asked: &Asked<'_>, found: Vec<Found>, form: Form) -> Outcome {
    let keys = cx.keyspace();
    let held = keys.kind(into)?.is_some();
    let members = found.into_iter().map(|found| {
        let score = if asked.store_distances { found.distance } else { found.score };
        (found.member, score)
    });
    let size = keys.sorted_set_store(into, members)?;
    if size > 0 {
        cx.event(Class::SortedSet, if form == Form::SearchStore { "geosearchstore" } else { "georadiusstore" }, into);
    } else if held {
        cx.event(Class::Generic, "del", into);
    }
    cx.reply.unsigned(size);
    Ok(())
}
