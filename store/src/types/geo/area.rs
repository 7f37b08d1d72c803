//! Which ranges of scores hold every place of an area.

use super::{Cell, EARTH_RADIUS_M, Place, STEPS, latitude_distance_m};

/// Half of the circumference on a Mercator map, in metres.
const MERCATOR_MAX_M: f64 = 20_037_726.37;

/// An area around a place; lengths in metres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Within that distance.
    Circle {
        /// The distance.
        radius_m: f64,
    },
    /// Within a box whose sides run along longitudes and latitudes.
    Box {
        /// From west to east.
        width_m: f64,
        /// From south to north.
        height_m: f64,
    },
}

impl Shape {
    /// How far a place is from the centre in metres, if it is in the area.
    pub fn distance_m(&self, centre: Place, place: Place) -> Option<f64> {
        match self {
            Self::Circle { radius_m } => Some(centre.distance_m(place)).filter(|distance| distance <= radius_m),
            Self::Box { width_m, height_m } => {
                if latitude_distance_m(place.latitude, centre.latitude) > height_m / 2.0 {
                    return None;
                }
                let beside = Place { longitude: centre.longitude, ..place };
                if place.distance_m(beside) > width_m / 2.0 {
                    return None;
                }
                Some(centre.distance_m(place))
            }
        }
    }

    /// Half its width and height, and a distance that nothing in it is beyond.
    fn extent_m(&self) -> (f64, f64, f64) {
        match *self {
            Self::Circle { radius_m } => (radius_m, radius_m, radius_m),
            Self::Box { width_m, height_m } => {
                let (width, height) = (width_m / 2.0, height_m / 2.0);
                (width, height, (width * width + height * height).sqrt())
            }
        }
    }
}

/// Ranges of scores, the second number of each not in it, in the order in which Redis goes over them: the centre's cell, then its neighbours.
pub fn boxes(centre: Place, shape: &Shape) -> Vec<(f64, f64)> {
    let (half_width, half_height, radius) = shape.extent_m();
    let latitude_delta = (half_height / EARTH_RADIUS_M).to_degrees();
    let edge = |latitude: f64| (half_width / EARTH_RADIUS_M / latitude.to_radians().cos()).to_degrees();
    // The edge that is farther from the equator is the longer one in degrees… as Redis has it, by hemisphere.
    let longitude_delta =
        if centre.latitude < 0.0 { edge(centre.latitude - latitude_delta) } else { edge(centre.latitude + latitude_delta) };
    let bounds = Bounds {
        west: centre.longitude - longitude_delta,
        east: centre.longitude + longitude_delta,
        south: centre.latitude - latitude_delta,
        north: centre.latitude + latitude_delta,
    };
    let mut steps = steps_for(radius, centre.latitude);
    if steps > 1 && !bounds.within_neighbours(Cell::of(centre, steps)) {
        steps -= 1;
    }
    let cell = Cell::of(centre, steps);
    let mut ranges = Vec::new();
    let mut last = None;
    // East, north: the cell itself, then as Redis names them.
    for (x, y) in [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)] {
        if steps >= 2 && bounds.excludes(cell, x, y) {
            continue;
        }
        let neighbour = cell.moved(x, y);
        // Of few and huge cells neighbours may be one and the same.
        if last == Some(neighbour) {
            continue;
        }
        last = Some(neighbour);
        let shift = 2 * (STEPS - steps);
        let first = neighbour.bits();
        ranges.push(((first << shift) as f64, ((first + 1) << shift) as f64));
    }
    ranges
}

/// How often the earth is halved so that a cell and its neighbours hold a circle of that radius.
fn steps_for(radius_m: f64, latitude: f64) -> u32 {
    if radius_m == 0.0 {
        return STEPS;
    }
    let (mut radius, mut steps) = (radius_m, 1i32);
    while radius < MERCATOR_MAX_M {
        radius *= 2.0;
        steps += 1;
    }
    // So that it holds it wherever in its cell the centre is; cells are narrower near the poles.
    steps -= 2;
    if latitude.abs() > 66.0 {
        steps -= 1;
        if latitude.abs() > 80.0 {
            steps -= 1;
        }
    }
    steps.clamp(1, STEPS as i32).unsigned_abs()
}

struct Bounds {
    west: f64,
    east: f64,
    south: f64,
    north: f64,
}

impl Bounds {
    /// Whether they end within the cells next to that one.
    fn within_neighbours(&self, cell: Cell) -> bool {
        cell.moved(0, 1).latitudes().1 >= self.north
            && cell.moved(0, -1).latitudes().0 <= self.south
            && cell.moved(1, 0).longitudes().1 >= self.east
            && cell.moved(-1, 0).longitudes().0 <= self.west
    }

    /// Whether the neighbour in that direction has no part in them.
    fn excludes(&self, cell: Cell, x: i32, y: i32) -> bool {
        let ((west, east), (south, north)) = (cell.longitudes(), cell.latitudes());
        (y < 0 && south < self.south)
            || (y > 0 && north > self.north)
            || (x < 0 && west < self.west)
            || (x > 0 && east > self.east)
    }
}

impl Cell {
    /// The cell so many to the east and to the north; around the earth, and around the poles. The very edge of the earth is in a cell beyond the
    /// last, and stays there while it is not moved.
    fn moved(self, x: i32, y: i32) -> Self {
        let mask = ((1u64 << self.steps) - 1) as u32;
        let moved = |at: u32, by: i32| if by == 0 { at } else { at.wrapping_add_signed(by) & mask };
        Self { x: moved(self.x, x), y: moved(self.y, y), ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Away from the poles and the date line, where Redis' own ranges have gaps.
        #[test]
        fn every_place_of_an_area_is_in_its_boxes(
            longitude in -120.0..120.0f64, latitude in -60.0..60.0f64, radius_m in 1.0..500_000.0f64, angle in 0.0..6.3f64, share in 0.0..1.0f64
        ) {
            let centre = Place::new(longitude, latitude).unwrap();
            let far = (radius_m * share / EARTH_RADIUS_M).to_degrees();
            let place = Place::new(longitude + far * angle.cos() / latitude.to_radians().cos(), latitude + far * angle.sin()).unwrap();
            for shape in [Shape::Circle { radius_m }, Shape::Box { width_m: radius_m, height_m: 2.0 * radius_m }] {
                if shape.distance_m(centre, place).is_some() {
                    let score = place.score();
                    prop_assert!(boxes(centre, &shape).iter().any(|(from, to)| (*from..*to).contains(&score)), "{shape:?}");
                }
            }
        }
    }

    #[test]
    fn a_point_is_looked_for_in_one_cell_and_its_neighbours() {
        let centre = Place::new(10.0, 50.0).unwrap();
        let point = boxes(centre, &Shape::Circle { radius_m: 0.0 });
        assert!(!point.is_empty() && point.len() <= 9 && point.iter().all(|(from, to)| (to - from) as u64 == 1));
        let earth = boxes(centre, &Shape::Circle { radius_m: 3e7 });
        assert!(earth.iter().map(|(from, to)| to - from).sum::<f64>() >= 2f64.powi(52));
    }
}
