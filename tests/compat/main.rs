//! What real clients expect: the replies of a real redis-server, real client libraries, and refusals that close nobody else's door.

mod clients;
mod differential;
mod hostile;
