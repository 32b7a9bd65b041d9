//! How often each client may ask. A client is who comes with a key, else an address; probes are counted apart, so that who
//! asks too much keeps no monitor of the same address from its answer.
//!
//! Each client has a clock that every request sets forward by a share of a second, and that may be a second ahead of the
//! time: a second's worth at once, and the rate from then on (the generic cell rate algorithm of ITU-T I.371).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::request::Parts;
use orcd_shared::error::ErrorCode;

use super::error::ApiError;
use super::routes::is_probe;
use super::server::address_of;
use crate::jobs::Owner;

/// Requests of a client a second, unless it is set.
const BY_DEFAULT: u32 = 2000;
/// Clients that are remembered. Who is not has no more than a second's worth to gain.
const MOST_CLIENTS: usize = 4096;
/// How far a clock may be ahead.
const AHEAD: Duration = Duration::from_secs(1);

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// Who has this key.
    Holder(Owner),
    /// Somebody at this address, without a key.
    At(IpAddr),
    /// Somebody there who asks how the service is.
    Probing(IpAddr),
}

impl Client {
    /// Whoever `owner` is, or is at `address`; `None` where the request came over no connection.
    pub(super) fn of(owner: Owner, address: Option<IpAddr>, probes: bool) -> Option<Self> {
        let address = address.map(network);
        match (address, probes) {
            (Some(address), true) => Some(Self::Probing(address)),
            _ if owner != Owner::default() => Some(Self::Holder(owner)),
            (Some(address), false) => Some(Self::At(address)),
            (None, _) => None,
        }
    }
}

/// What of an address one client alone has: all of IPv4's, half of IPv6's.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            Ipv6Addr::from(prefix).into()
        }
        own => own,
    }
}

/// The clocks of all clients.
#[derive(Debug)]
pub(super) struct Rates {
    /// Requests a second; 0: as many as come.
    most: u32,
    /// Whether those from this machine without a key count too.
    counts_loopback: bool,
    clocks: Mutex<HashMap<Client, Instant>>,
}

impl Rates {
    /// At most so many requests of a client a second; 0: as many as come; `None`: as many as is usual, and as many as come
    /// from this machine without a key: who is there can do worse, and may be a proxy for many.
    pub(super) fn of(most: Option<u32>) -> Self {
        Self {
            most: most.unwrap_or(BY_DEFAULT),
            counts_loopback: most.is_some(),
            clocks: Mutex::default(),
        }
    }

    /// Counts the request of `parts`, which `owner` sent if it came with a key.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(super) fn count(&self, parts: &Parts, owner: Option<Owner>) -> Result<(), ApiError> {
        let probes = is_probe(parts.uri.path());
        match Client::of(owner.unwrap_or_default(), address_of(parts), probes) {
            Some(client) if self.counts(client) => self.take(client, Instant::now()),
            _ => Ok(()),
        }
    }

    fn counts(&self, client: Client) -> bool {
        match client {
            Client::Holder(_) => true,
            Client::At(address) | Client::Probing(address) => {
                self.counts_loopback || !address.is_loopback()
            }
        }
    }

    /// Counts a request of `client` at `now`.
    ///
    /// # Errors
    /// `RATE_LIMITED`: it asks more often than it may. Such requests don't count.
    fn take(&self, client: Client, now: Instant) -> Result<(), ApiError> {
        let Some(share) = Duration::from_secs(1).checked_div(self.most) else {
            return Ok(());
        };
        // A map is whole after each call, also one that panicked.
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        let clock = clocks.get(&client).map_or(now, |&clock| clock.max(now));
        let next = clock + share;
        if next > now + AHEAD {
            let message = format!(
                "more than {} requests a second of one client; send them more slowly, or raise --max-requests-per-sec",
                self.most
            );
            return Err(ApiError::new(ErrorCode::RateLimited, message));
        }
        if clocks.len() >= MOST_CLIENTS && !clocks.contains_key(&client) {
            make_room(&mut clocks, now);
        }
        clocks.insert(client, next);
        Ok(())
    }
}

/// Forgets those for whom nothing changes by that; if they are few, also those whose clocks are ahead least, a quarter of
/// all, so that not each new client costs a look at every other.
fn make_room(clocks: &mut HashMap<Client, Instant>, now: Instant) {
    clocks.retain(|_, clock| *clock > now);
    let surplus = clocks.len().saturating_sub(MOST_CLIENTS * 3 / 4);
    if surplus > 0 {
        let mut times: Vec<Instant> = clocks.values().copied().collect();
        let (_, last, _) = times.select_nth_unstable(surplus - 1);
        let last = *last;
        clocks.retain(|_, clock| *clock > last);
    }
}

impl std::fmt::Debug for Client {
    /// Without the key's digest.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Holder(_) => f.write_str("Holder"),
            Self::At(address) => write!(f, "At({address})"),
            Self::Probing(address) => write!(f, "Probing({address})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn at(number: u32) -> Client {
        Client::At(IpAddr::V4(number.into()))
    }

    /// Requests of `client` at `now` until one is refused.
    fn burst(rates: &Rates, client: Client, now: Instant) -> usize {
        (0..10_000)
            .take_while(|_| rates.take(client, now).is_ok())
            .count()
    }

    #[test]
    fn a_second_s_worth_may_come_at_once_and_then_the_rate_counts() {
        let rates = Rates::of(Some(100));
        let begin = Instant::now();
        let after = |ms| begin + Duration::from_millis(ms);
        assert_eq!(burst(&rates, at(1), begin), 100);
        assert_eq!(burst(&rates, at(1), after(9)), 0);
        assert_eq!(burst(&rates, at(1), after(10)), 1);
        assert_eq!(burst(&rates, at(1), after(260)), 25);
        assert_eq!(burst(&rates, at(1), after(10_000)), 100);
        let error = rates.take(at(1), after(10_000)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::RateLimited);
        assert!(error.message().contains("100 requests"), "{error:?}");
    }

    #[test]
    fn clients_have_clocks_of_their_own() {
        let rates = Rates::of(Some(5));
        let now = Instant::now();
        let key = |byte| Client::Holder(Owner::of_key([byte; 32]));
        let address = IpAddr::V4(7.into());
        for client in [at(1), at(2), key(1), key(2), Client::Probing(address)] {
            assert_eq!(burst(&rates, client, now), 5, "{client:?}");
        }
    }

    #[test]
    fn from_this_machine_as_many_as_come_are_taken_unless_a_bound_is_set() {
        let at = |text: &str| Client::At(network(text.parse().unwrap()));
        let probing = Client::Probing(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let holder = Client::Holder(Owner::of_key([1; 32]));
        let local = [
            at("127.0.0.1"),
            at("::1"),
            at("127.0.0.9"),
            at("::ffff:127.0.0.1"),
            probing,
        ];
        let by_default = Rates::of(None);
        assert_eq!(by_default.most, BY_DEFAULT);
        for client in local {
            assert!(!by_default.counts(client), "{client:?}");
            assert!(Rates::of(Some(9)).counts(client), "{client:?}");
        }
        for client in [at("10.0.0.1"), at("2001:db8::1"), holder] {
            assert!(by_default.counts(client), "{client:?}");
        }
    }

    #[test]
    fn without_a_bound_nobody_is_counted() {
        let rates = Rates::of(Some(0));
        assert_eq!(burst(&rates, at(1), Instant::now()), 10_000);
        assert!(rates.clocks.lock().unwrap().is_empty());
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let rates = Rates::of(Some(2));
        let begin = Instant::now();
        let after = |number: u32| begin + Duration::from_micros(number.into());
        let remembered = || rates.clocks.lock().unwrap().len();
        for number in 0..10_000 {
            rates.take(at(number), after(number)).unwrap();
            assert!(remembered() <= MOST_CLIENTS);
        }
        // Who asked last is remembered, and who asked longest ago is not.
        assert!(remembered() >= MOST_CLIENTS / 2);
        assert_eq!(burst(&rates, at(9_999), after(10_000)), 1);
        assert_eq!(burst(&rates, at(0), after(10_000)), 2);
        // A clock that is reached says nothing.
        let end = begin + Duration::from_secs(5);
        for number in 0..10_000 {
            rates.take(at(20_000 + number), end).unwrap();
            assert!(remembered() <= MOST_CLIENTS);
        }
    }

    #[test]
    fn a_client_is_a_key_or_else_the_network_that_one_has() {
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let nobody = Owner::default();
        let holder = Owner::of_key([1; 32]);
        let of = |text, probes| Client::of(nobody, address(text), probes);
        assert_eq!(of("::ffff:1.2.3.4", false), of("1.2.3.4", false));
        assert_ne!(of("1.2.3.5", false), of("1.2.3.4", false));
        assert_eq!(of("2001:db8::1", false), of("2001:db8::ffff", false));
        assert_ne!(of("2001:db8:0:1::1", false), of("2001:db8::1", false));
        assert_ne!(of("1.2.3.4", true), of("1.2.3.4", false));
        assert_eq!(
            Client::of(holder, address("1.2.3.4"), false),
            Client::of(holder, address("4.3.2.1"), false)
        );
        assert_eq!(
            Client::of(holder, address("1.2.3.4"), true),
            of("1.2.3.4", true)
        );
        assert_eq!(Client::of(nobody, None, false), None);
    }
}
