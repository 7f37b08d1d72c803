//! Commands of places, which are members of sorted sets.

use bytes::Bytes;

use super::{
    CommandError, Context, numbers,
    sorted_sets::{self, AddWords},
};
use crate::{
    protocol::{ReplyWriter, Request},
    types::{AddOptions, geo::Place, human_text},
};

pub(super) mod search;

type Outcome = Result<(), CommandError>;

pub(super) fn geoadd(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let mut words = AddWords::default();
    let mut rest = &request[2..];
    while let [word, behind @ ..] = rest {
        match word.to_ascii_lowercase().as_slice() {
            b"nx" => words.options.nx = true,
            b"xx" => words.options.xx = true,
            b"ch" => words.changed = true,
            _ => break,
        }
        rest = behind;
    }
    let AddOptions { nx, xx, .. } = words.options;
    if rest.is_empty() || !rest.len().is_multiple_of(3) || nx && xx {
        return Err(CommandError::syntax());
    }
    let mut entries = Vec::with_capacity(rest.len() / 3);
    for triple in rest.chunks_exact(3) {
        entries.push((place(&triple[0], &triple[1])?.score(), triple[2].as_ref()));
    }
    sorted_sets::add(cx, &request[1], &entries, &words)
}

fn place(longitude: &[u8], latitude: &[u8]) -> Result<Place, CommandError> {
    let (longitude, latitude) = (numbers::score(longitude)?, numbers::score(latitude)?);
    let refused = || CommandError::new(format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}"));
    Place::new(longitude, latitude).ok_or_else(refused)
}

/// Metres of a unit.
fn unit(word: &[u8]) -> Result<f64, CommandError> {
    match word.to_ascii_lowercase().as_slice() {
        b"m" => Ok(1.0),
        b"km" => Ok(1000.0),
        b"ft" => Ok(0.3048),
        b"mi" => Ok(1609.34),
        _ => Err(CommandError::new("ERR unsupported unit provided. please use M, KM, FT, MI")),
    }
}

fn write_place(reply: &mut ReplyWriter<'_>, place: Place) {
    reply.array(2);
    reply.double(&human_text(place.longitude));
    reply.double(&human_text(place.latitude));
}

/// The places of members, `None` for one that is not there.
fn places(cx: &Context<'_, '_>, key: &[u8], members: &[Bytes]) -> Result<Vec<Option<Place>>, CommandError> {
    let Some(set) = cx.keyspace().sorted_set(key)? else { return Ok(vec![None; members.len()]) };
    let members: Vec<&[u8]> = members.iter().map(AsRef::as_ref).collect();
    let mut places = Vec::with_capacity(members.len());
    set.scores(&members, |score| places.push(score.map(Place::of_score)))?;
    Ok(places)
}

pub(super) fn geopos(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let places = places(cx, &request[1], &request[2..])?;
    cx.reply.array(places.len());
    for place in places {
        match place {
            Some(place) => write_place(cx.reply, place),
            None => cx.reply.null_array(),
        }
    }
    Ok(())
}

pub(super) fn geohash(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let places = places(cx, &request[1], &request[2..])?;
    cx.reply.array(places.len());
    for place in places {
        cx.reply.bulk_or_null(place.map(|place| place.geohash().into_bytes()).as_deref());
    }
    Ok(())
}

pub(super) fn geodist(cx: &mut Context<'_, '_>, request: &Request) -> Outcome {
    let metres = match &request[4..] {
        [] => 1.0,
        [word] => unit(word)?,
        _ => return Err(CommandError::syntax()),
    };
    match places(cx, &request[1], &request[2..4])?.as_slice() {
        [Some(one), Some(other)] => write_distance(cx.reply, one.distance_m(*other) / metres),
        _ => cx.reply.null(),
    }
    Ok(())
}

fn write_distance(reply: &mut ReplyWriter<'_>, distance: f64) {
    reply.bulk(format!("{distance:.4}").as_bytes());
}
