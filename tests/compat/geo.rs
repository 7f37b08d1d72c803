//! Places beside those of a real redis-server: scores, distances and geohashes to the last digit.

use anyhow::ensure;
use proptest::prelude::*;
use sluice_tests::resp::{Answer, Connection};

use crate::family::{self, Family, Words, key, on_key, tail, words};

struct Geo;

fn member() -> impl Strategy<Value = String> {
    prop_oneof![6 => "p[0-9]", 1 => Just(String::new()), 1 => "q[0-9]"]
}

/// Places all over the earth, many of them near one another, at the poles' edge and at the date line, and some that are none.
fn place() -> impl Strategy<Value = Words> {
    prop_oneof![
        6 => (10.0..20.0f64, 45.0..55.0f64),
        3 => (-180.0..180.0f64, -85.0..85.0f64),
        1 => (179.0..180.0f64, -1.0..1.0f64),
        1 => (-180.0..180.0f64, 80.0..85.05f64),
        1 => Just((0.0, 0.0)),
    ]
    .prop_map(|(longitude, latitude)| vec![format!("{longitude:.6}"), format!("{latitude:.6}")])
}

fn any_place() -> impl Strategy<Value = Words> {
    prop_oneof![12 => place(), 1 => tail(&["181 0", "0 86", "x 0", "0 x", "nan 0", "inf 0", "-180 -85.05112878", "180 85.05112878"])]
}

fn triples() -> impl Strategy<Value = Words> {
    prop::collection::vec((any_place(), member()), 1..6)
        .prop_map(|places| places.into_iter().flat_map(|(place, member)| [place, vec![member]].concat()).collect())
}

fn unit() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["m", "km", "km", "km", "MI", "ft", "yd"]).prop_map(str::to_owned)
}

fn distance() -> impl Strategy<Value = Words> {
    let length = prop_oneof![6 => (1.0..3000.0f64).prop_map(|length| format!("{length:.3}")), 1 => prop::sample::select(vec!["0", "-1", "x", "30000"]).prop_map(str::to_owned)];
    (length, unit()).prop_map(|(length, unit)| vec![length, unit])
}

fn sides() -> impl Strategy<Value = Words> {
    (1.0..3000.0f64, prop_oneof![6 => (1.0..3000.0f64).prop_map(|height| format!("{height:.3}")), 1 => tail(&["-1", "x"]).prop_map(|words| words.concat())], unit())
        .prop_map(|(width, height, unit)| vec![format!("{width:.3}"), height, unit])
}

fn centre() -> impl Strategy<Value = Words> {
    prop_oneof![
        3 => any_place().prop_map(|place| [words("FROMLONLAT"), place].concat()),
        3 => member().prop_map(|member| vec!["FROMMEMBER".to_owned(), member]),
        1 => tail(&["", "FROMMEMBER p1 FROMLONLAT 1 1", "FROMLONLAT 1 1 FROMMEMBER p1", "FROMLONLAT 1"]),
    ]
}

fn area() -> impl Strategy<Value = Words> {
    prop_oneof![
        4 => distance().prop_map(|distance| [words("BYRADIUS"), distance].concat()),
        4 => sides().prop_map(|sides| [words("BYBOX"), sides].concat()),
        1 => tail(&["", "BYRADIUS 1", "BYRADIUS 1 m BYBOX 1 1 m", "BYBOX 1 1 m BYRADIUS 1 m"]),
    ]
}

fn options() -> impl Strategy<Value = Words> {
    tail(&[
        "",
        "ASC",
        "DESC",
        "COUNT 2",
        "COUNT 3 ASC",
        "COUNT 2 DESC",
        "COUNT 0",
        "COUNT x",
        "COUNT 2 ANY",
        "ANY",
        "COUNT 1 ANY ASC",
        "WHAT",
        "WITHDIST",
        "WITHDIST ASC",
        "WITHCOORD",
        "WITHHASH",
        "WITHDIST WITHHASH WITHCOORD DESC",
        "WITHDIST WITHCOORD COUNT 3",
    ])
}

impl Family for Geo {
    const GROUPS: &'static [&'static str] = &["geo"];
    const KEYS: &'static [&'static str] = &["g1", "g2", "{x}g3", "zset"];

    fn command() -> BoxedStrategy<Words> {
        let places = prop_oneof![
            8 => on_key::<Self>("GEOADD", triples()),
            3 => on_key::<Self>("GEOADD", (tail(&["NX", "XX", "CH", "XX CH", "NX XX", "NX CH"]), triples()).prop_map(|(options, rest)| [options, rest].concat())),
            1 => on_key::<Self>("ZADD", (0u64..1 << 53, member()).prop_map(|(score, member)| vec![score.to_string(), member])),
            1 => on_key::<Self>("ZREM", member().prop_map(|member| vec![member])),
            2 => on_key::<Self>("GEOPOS", prop::collection::vec(member(), 0..4)),
            2 => on_key::<Self>("GEOHASH", prop::collection::vec(member(), 0..4)),
            4 => on_key::<Self>("GEODIST", (member(), member(), prop_oneof![Just(vec![]), unit().prop_map(|unit| vec![unit])])
                .prop_map(|(one, other, unit)| [vec![one, other], unit].concat())),
            1 => prop::sample::select(vec!["GEOADD g1 1 1", "GEOADD g1 1 1 a 2", "GEOADD g1 NX CH XX", "GEODIST g1 a", "GEODIST g1 a b m m", "GEOPOS",
                "GEOSEARCH g1 FROMMEMBER p1", "GEORADIUS g1 1 1 1", "GEORADIUSBYMEMBER g1 p1 1"]).prop_map(words),
        ];
        let searches = prop_oneof![
            6 => on_key::<Self>("GEOSEARCH", (centre(), area(), options()).prop_map(|(centre, area, options)| [centre, area, options].concat())),
            3 => on_key::<Self>("GEOSEARCHSTORE", (key::<Self>(), centre(), area(), tail(&["", "STOREDIST", "ASC COUNT 2", "WITHDIST", "COUNT 3 STOREDIST"]))
                .prop_map(|(from, centre, area, options)| [vec![from], centre, area, options].concat())),
            2 => (prop::sample::select(vec!["GEORADIUS", "GEORADIUS_RO"]), key::<Self>(), any_place(), distance(), options())
                .prop_map(|(name, key, place, distance, options)| [vec![name.to_owned(), key], place, distance, options].concat()),
            2 => (prop::sample::select(vec!["GEORADIUSBYMEMBER", "GEORADIUSBYMEMBER_RO"]), key::<Self>(), member(), distance(), options())
                .prop_map(|(name, key, member, distance, options)| [vec![name.to_owned(), key, member], distance, options].concat()),
            1 => on_key::<Self>("GEORADIUS", (any_place(), distance(), tail(&["STORE g2", "STOREDIST {x}g3", "STORE g1 WITHDIST", "STORE", "STORE g1 COUNT 2"]))
                .prop_map(|(place, distance, options)| [place, distance, options].concat())),
            1 => on_key::<Self>("GEORADIUSBYMEMBER", (member(), distance(), tail(&["STORE g2", "STOREDIST g1 DESC COUNT 1", "STOREDIST g1 WITHHASH"]))
                .prop_map(|(member, distance, options)| [vec![member], distance, options].concat())),
            1 => (prop::sample::select(vec!["GEORADIUS_RO g1 1 1 1 km STORE g2", "GEORADIUSBYMEMBER_RO g1 p1 1 km STORE g2"])).prop_map(words),
        ];
        prop_oneof![4 => places, 5 => searches].boxed()
    }

    fn normal(command: &[String], answer: Answer) -> Answer {
        let ordered = command.iter().any(|word| matches!(word.as_str(), "ASC" | "DESC" | "COUNT" | "ANY"));
        match command[0].as_str() {
            "GEOSEARCH" | "GEORADIUS" | "GEORADIUSBYMEMBER" | "GEORADIUS_RO" | "GEORADIUSBYMEMBER_RO" if !ordered => {
                family::sorted(answer, 1)
            }
            "ZRANGE" => family::numbers(answer),
            _ => answer,
        }
    }

    fn state(key: &str) -> Vec<Words> {
        vec![["ZRANGE", key, "0", "-1", "WITHSCORES"].map(str::to_owned).to_vec()]
    }

    async fn look(connection: &mut Connection, key: &str) -> anyhow::Result<()> {
        let all = connection.ask(&["ZRANGE", key, "0", "-1", "WITHSCORES"]).await?;
        let flat: Vec<&Answer> = match all.elements() {
            [Answer::Array(_), ..] => all.elements().iter().flat_map(Answer::elements).collect(),
            elements => elements.iter().collect(),
        };
        for pair in flat.chunks(2) {
            let score = match pair[1] {
                Answer::Double(text) => text.as_str(),
                other => other.text().unwrap_or_default(),
            };
            // Of ZADD there are scores beyond the earth.
            if score.parse::<f64>()? < 2f64.powi(52) {
                let here = connection
                    .ask(&["GEOSEARCH", key, "FROMMEMBER", pair[0].text().unwrap_or_default(), "BYRADIUS", "0", "m"])
                    .await?;
                ensure!(here.elements().contains(pair[0]), "{key}: {:?} is not where it is: {here:?}", pair[0]);
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_places_answers_as_redis_does() -> anyhow::Result<()> {
    family::answers_as_redis_does::<Geo>(5000).await
}
