//! Transactions.

commands! {
    "transactions";
}
