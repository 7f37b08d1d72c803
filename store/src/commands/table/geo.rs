//! Places on the earth, in sorted sets.

use super::{BOTH, Keys, ONE, SLOW_READ, SLOW_WRITE, WRITE};
use crate::commands::geo::{self, search};

/// The key, and that of STORE.
const STORING: Keys = Keys::Storing;

commands! {
    "geo";
    "geoadd"      -5 WRITE ONE   "3.2.0"  "O(N) of the places" Now(geo::geoadd) "Adds places or moves them, with NX, XX, CH.";
    "geopos"      -2 SLOW_READ ONE "3.2.0" "O(N) of the members" Now(geo::geopos) "Longitudes and latitudes of members.";
    "geohash"     -2 SLOW_READ ONE "3.2.0" "O(N) of the members" Now(geo::geohash) "Geohashes of members, as everybody writes them.";
    "geodist"     -4 SLOW_READ ONE "3.2.0" "O(1)" Now(geo::geodist) "The distance of two members.";
    "geosearch"   -7 SLOW_READ ONE "6.2.0" "O(N) of the places in and around the area" Now(search::geosearch) "Members in a circle or a box.";
    "geosearchstore" -8 SLOW_WRITE BOTH "6.2.0" "O(N) of the places in and around the area" Now(search::geosearchstore) "Stores what GEOSEARCH answers.";
    "georadius"   -6 SLOW_WRITE STORING "3.2.0" "O(N) of the places in and around the circle" Now(search::georadius) "Members in a circle, with STORE.";
    "georadius_ro" -6 SLOW_READ ONE "3.2.10" "O(N) of the places in and around the circle" Now(search::georadius_ro) "Members in a circle.";
    "georadiusbymember" -5 SLOW_WRITE STORING "3.2.0" "O(N) of the places in and around the circle" Now(search::georadiusbymember) "Members in a circle around one of them, with STORE.";
    "georadiusbymember_ro" -5 SLOW_READ ONE "3.2.10" "O(N) of the places in and around the circle" Now(search::georadiusbymember_ro) "Members in a circle around one of them.";
}
