//! Places on the earth: pure arithmetic. A place is a score of a sorted set: 52 bits, of longitude and latitude in turn, so that places near
//! one another mostly have scores near one another. Numbers are Redis' own to the last bit, so that scores and distances are.

mod area;

pub use area::{Shape, boxes};

/// Radius of the earth in metres.
const EARTH_RADIUS_M: f64 = 6_372_797.560_856;
/// Bits of each coordinate.
const STEPS: u32 = 26;
/// Limits of what can be encoded: those of the web's Mercator maps.
const LONGITUDE_MAX: f64 = 180.0;
const LATITUDE_MAX: f64 = 85.051_128_78;
/// Digits of a geohash text.
const TEXT_DIGITS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
const TEXT_LEN: u32 = 11;

/// Where something is, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// From -180 to 180.
    pub longitude: f64,
    /// From -85.05112878 to 85.05112878.
    pub latitude: f64,
}

impl Place {
    /// A place that can be encoded.
    pub fn new(longitude: f64, latitude: f64) -> Option<Self> {
        let inside = (-LONGITUDE_MAX..=LONGITUDE_MAX).contains(&longitude) && (-LATITUDE_MAX..=LATITUDE_MAX).contains(&latitude);
        inside.then_some(Self { longitude, latitude })
    }

    /// Its score: 52 bits.
    pub fn score(self) -> f64 {
        Cell::of(self, STEPS).bits() as f64
    }

    /// The middle of the cell that a score stands for.
    pub fn of_score(score: f64) -> Self {
        let cell = Cell::from_bits(score as u64, STEPS);
        let middle = |(min, max): (f64, f64), limit: f64| f64::midpoint(min, max).clamp(-limit, limit);
        Self { longitude: middle(cell.longitudes(), LONGITUDE_MAX), latitude: middle(cell.latitudes(), LATITUDE_MAX) }
    }

    /// Metres to another place, along a great circle (haversine).
    pub fn distance_m(self, other: Self) -> f64 {
        let v = ((other.longitude.to_radians() - self.longitude.to_radians()) / 2.0).sin();
        if v == 0.0 {
            return latitude_distance_m(self.latitude, other.latitude);
        }
        let (from, to) = (self.latitude.to_radians(), other.latitude.to_radians());
        let u = ((to - from) / 2.0).sin();
        let a = u * u + from.cos() * to.cos() * v * v;
        2.0 * EARTH_RADIUS_M * a.sqrt().asin()
    }

    /// The geohash everybody else writes: eleven digits, its latitudes to the poles.
    pub fn geohash(self) -> String {
        let bits = interleave(fraction(self.latitude, 90.0, STEPS), fraction(self.longitude, LONGITUDE_MAX, STEPS));
        let digit = |at: u32| {
            // 52 bits are ten digits and two bits; the last digit is always 0.
            let index = if at + 1 < TEXT_LEN { bits >> (52 - (at + 1) * 5) & 0x1f } else { 0 };
            char::from(TEXT_DIGITS[index as usize])
        };
        (0..TEXT_LEN).map(digit).collect()
    }
}

/// Metres between two latitudes.
fn latitude_distance_m(one: f64, other: f64) -> f64 {
    EARTH_RADIUS_M * (other.to_radians() - one.to_radians()).abs()
}

/// A cell of the grid that halves longitudes and latitudes that many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    x: u32,
    y: u32,
    steps: u32,
}

impl Cell {
    fn of(place: Place, steps: u32) -> Self {
        let (x, y) = (fraction(place.longitude, LONGITUDE_MAX, steps), fraction(place.latitude, LATITUDE_MAX, steps));
        Self { x, y, steps }
    }

    fn from_bits(bits: u64, steps: u32) -> Self {
        Self { x: even_bits(bits >> 1), y: even_bits(bits), steps }
    }

    /// Latitude's bits are the even ones, the lowest among them.
    fn bits(self) -> u64 {
        interleave(self.y, self.x)
    }

    fn longitudes(self) -> (f64, f64) {
        self.range(self.x, LONGITUDE_MAX)
    }

    fn latitudes(self) -> (f64, f64) {
        self.range(self.y, LATITUDE_MAX)
    }

    fn range(self, at: u32, limit: f64) -> (f64, f64) {
        let (cells, width) = ((1u64 << self.steps) as f64, limit - -limit);
        (-limit + (f64::from(at) / cells) * width, -limit + ((f64::from(at) + 1.0) / cells) * width)
    }
}

/// In which of `2^steps` cells between the limits.
fn fraction(at: f64, limit: f64, steps: u32) -> u32 {
    let offset = (at - -limit) / (limit - -limit) * (1u64 << steps) as f64;
    offset as u32
}

/// The bits of two numbers in turn, the lowest of `even` first.
fn interleave(even: u32, odd: u32) -> u64 {
    let spread = |number: u32| {
        [
            (16, 0x0000_ffff_0000_ffff),
            (8, 0x00ff_00ff_00ff_00ff),
            (4, 0x0f0f_0f0f_0f0f_0f0f),
            (2, 0x3333_3333_3333_3333),
            (1, 0x5555_5555_5555_5555),
        ]
        .into_iter()
        .fold(u64::from(number), |bits, (shift, mask)| (bits | bits << shift) & mask)
    };
    spread(even) | spread(odd) << 1
}

fn even_bits(bits: u64) -> u32 {
    let packed = [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffff),
    ]
    .into_iter()
    .fold(bits & 0x5555_5555_5555_5555, |bits: u64, (shift, mask)| (bits | bits >> shift) & mask);
    packed as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_are_encoded_as_redis_encodes_them() {
        // The two cities of Redis' documentation.
        let palermo = Place::new(13.361_389, 38.115_556).unwrap();
        let catania = Place::new(15.087_269, 37.502_669).unwrap();
        assert_eq!(palermo.score() as u64, 3_479_099_956_230_698);
        assert_eq!(catania.score() as u64, 3_479_447_370_796_909);
        let (palermo, catania) = (Place::of_score(palermo.score()), Place::of_score(catania.score()));
        assert_eq!((palermo.geohash().as_str(), catania.geohash().as_str()), ("sqc8b49rny0", "sqdtr74hyu0"));
        assert_eq!(format!("{:.4}", palermo.distance_m(catania)), "166274.1516");
        assert!(Place::new(181.0, 0.0).is_none() && Place::new(0.0, 86.0).is_none() && Place::new(f64::NAN, 0.0).is_none());
    }

    proptest! {
        #[test]
        fn a_score_is_near_its_place(longitude in -180.0..=180.0f64, latitude in -85.0..=85.0f64) {
            let place = Place::new(longitude, latitude).unwrap();
            let again = Place::of_score(place.score());
            prop_assert!(place.distance_m(again) < 1.0);
        }

        #[test]
        fn bits_in_turn_round_trip(x in any::<u32>(), y in any::<u32>()) {
            let bits = interleave(y, x);
            prop_assert_eq!((even_bits(bits), even_bits(bits >> 1)), (y, x));
        }
    }
}
