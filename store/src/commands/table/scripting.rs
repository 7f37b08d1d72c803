//! Scripts and functions.

commands! {
    "scripting";
}
