//! Reserving stock.

use std::collections::{BTreeMap, HashMap, HashSet};

use service::db::{self, Connection};
use uuid::Uuid;

use super::store::{self, Level, LineRow, Offer};
use super::{Line, Lives, Outcome, Reservation, ReservedLine, Short, State};

/// A reservation that exists, by this batch or an earlier one.
struct Known {
    ended: bool,
    remaining_ms: i64,
    lines: HashMap<Uuid, LineRow>,
}

/// Reserves all lines of each order or none; an outcome each, in order. Earlier ones in the slice have
/// precedence.
pub async fn reserve(
    connection: &mut Connection,
    reservations: &[Reservation],
    lives: Lives,
) -> sqlx::Result<Vec<Outcome>> {
    let products = distinct(reservations.iter().flat_map(|r| r.lines.iter().map(|line| line.product_id)));
    let offers = store::offers(connection, &products).await?;
    let mut available: HashMap<Uuid, i32> = offers.values().map(|o| (o.id, o.available)).collect();

    // What is sold out by a read without a lock needs no lock: refusing it costs no write, and it was true at
    // the moment of the read. Whether the order had a reservation is checked afterwards, so that one made
    // meanwhile is seen.
    let first_check: Vec<_> = reservations.iter().map(|r| refusal(r, &offers, &available)).collect();
    let plausible = reservations.iter().zip(&first_check).filter(|(_, refused)| refused.is_none());
    let plausible = distinct(plausible.map(|(r, _)| r.order_id));
    let claimed = if plausible.is_empty() {
        HashMap::new()
    } else {
        store::claim(connection, &plausible, lives).await?
    };
    let others = distinct(reservations.iter().map(|r| r.order_id).filter(|id| !claimed.contains_key(id)));
    let mut known = known(connection, &others).await?;

    let wanted = reservations.iter().filter(|r| claimed.contains_key(&r.order_id));
    let wanted = distinct(wanted.flat_map(|r| r.lines.iter().map(|line| line.product_id)));
    if !wanted.is_empty() {
        for (product, level) in store::lock_stock(connection, &wanted).await? {
            available.insert(product, level.on_hand - level.reserved);
        }
    }

    let mut outcomes = Vec::with_capacity(reservations.len());
    let mut taken = BTreeMap::<Uuid, Level>::new();
    let mut rows = Vec::new();
    for (reservation, first_refusal) in reservations.iter().zip(first_check) {
        let order = reservation.order_id;
        if let Some(known) = known.get(&order) {
            outcomes.push(answer(reservation, known)?);
            continue;
        }
        let claim = claimed.get(&order);
        let refused = match claim {
            Some(_) => refusal(reservation, &offers, &available),
            None => first_refusal,
        };
        if let Some(refused) = refused {
            outcomes.push(refused);
            continue;
        }
        // It passed the first check, and is neither claimed nor there: it is so old that it may have been
        // deleted after its end.
        let Some(&remaining_ms) = claim else {
            outcomes.push(Outcome::Ended);
            continue;
        };
        let lines = snapshot(reservation, &offers);
        for line in lines.values() {
            *available.entry(line.product_id).or_default() -= line.quantity;
            taken.entry(line.product_id).or_default().reserved += line.quantity;
        }
        rows.extend(lines.values().cloned());
        let made = Known { ended: false, remaining_ms, lines };
        outcomes.push(answer(reservation, &made)?);
        known.insert(order, made);
    }

    let refused: Vec<Uuid> = claimed.keys().copied().filter(|id| !known.contains_key(id)).collect();
    if !refused.is_empty() {
        store::unclaim(connection, &refused).await?;
    }
    if !rows.is_empty() {
        store::insert_lines(connection, &rows).await?;
        store::add_to_stock(connection, &taken).await?;
    }
    Ok(outcomes)
}

fn distinct(ids: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
    let ids: HashSet<Uuid> = ids.collect();
    ids.into_iter().collect()
}

/// Units by product, in the order of first mention.
fn quantities(lines: &[Line]) -> Vec<(Uuid, u32)> {
    let mut merged: Vec<(Uuid, u32)> = Vec::with_capacity(lines.len());
    for line in lines {
        match merged.iter_mut().find(|(product, _)| *product == line.product_id) {
            Some((_, quantity)) => *quantity += line.quantity,
            None => merged.push((line.product_id, line.quantity)),
        }
    }
    merged
}

/// Why the reservation can't be made from the available stock; `None` when it can.
fn refusal(
    reservation: &Reservation,
    offers: &HashMap<Uuid, Offer>,
    available: &HashMap<Uuid, i32>,
) -> Option<Outcome> {
    let quantities = quantities(&reservation.lines);
    let sold_here = |product: &Uuid| offers.get(product).is_some_and(|offer| !offer.archived);
    let unknown = quantities.iter().map(|(product, _)| *product).filter(|product| !sold_here(product));
    let unknown: Vec<Uuid> = unknown.collect();
    if !unknown.is_empty() {
        return Some(Outcome::UnknownProducts(unknown));
    }
    let short = quantities.into_iter().filter_map(|(product_id, requested)| {
        let available = u32::try_from(available.get(&product_id).copied().unwrap_or(0)).unwrap_or(0);
        (requested > available).then_some(Short { product_id, requested, available })
    });
    let short: Vec<Short> = short.collect();
    (!short.is_empty()).then_some(Outcome::OutOfStock(short))
}

/// The lines as they are stored. Every product has an offer: `refusal` has checked that.
fn snapshot(reservation: &Reservation, offers: &HashMap<Uuid, Offer>) -> HashMap<Uuid, LineRow> {
    let lines = quantities(&reservation.lines).into_iter().filter_map(|(product_id, quantity)| {
        let offer = offers.get(&product_id)?;
        let line = LineRow {
            order_id: reservation.order_id,
            product_id,
            quantity: i32::try_from(quantity).ok()?,
            restocked: 0,
            sku: offer.sku.clone(),
            name: offer.name.clone(),
            unit_price: offer.price,
            currency: offer.currency.clone(),
        };
        Some((product_id, line))
    });
    lines.collect()
}

async fn known(connection: &mut Connection, orders: &[Uuid]) -> sqlx::Result<HashMap<Uuid, Known>> {
    if orders.is_empty() {
        return Ok(HashMap::new());
    }
    let held = store::find(connection, orders).await?.into_iter();
    let mut known: HashMap<Uuid, Known> = held
        .map(|held| {
            let ended = match held.state {
                State::Released | State::Expired => true,
                State::Reserved => held.lapsed,
                State::Committed => false,
            };
            let (remaining_ms, lines) = (held.remaining_ms, HashMap::new());
            (held.order_id, Known { ended, remaining_ms, lines })
        })
        .collect();
    if !known.is_empty() {
        for line in store::lines(connection, orders).await? {
            if let Some(known) = known.get_mut(&line.order_id) {
                known.lines.insert(line.product_id, line);
            }
        }
    }
    Ok(known)
}

/// The answer to a request for a reservation that exists.
fn answer(reservation: &Reservation, known: &Known) -> sqlx::Result<Outcome> {
    if known.ended {
        return Ok(Outcome::Ended);
    }
    let asked = quantities(&reservation.lines);
    let same = |(product, quantity): &(Uuid, u32)| {
        known.lines.get(product).is_some_and(|line| i64::from(line.quantity) == i64::from(*quantity))
    };
    if asked.len() != known.lines.len() || !asked.iter().all(same) {
        return Ok(Outcome::Conflict);
    }
    let lines = reservation.lines.iter().filter_map(|line| {
        let kept = known.lines.get(&line.product_id)?;
        let price = db::money(kept.unit_price, &kept.currency);
        Some(price.map(|unit_price| ReservedLine {
            product_id: line.product_id,
            sku: kept.sku.clone(),
            name: kept.name.clone(),
            unit_price,
            quantity: line.quantity,
        }))
    });
    Ok(Outcome::Reserved { lines: lines.collect::<Result<_, _>>()?, remaining_ms: known.remaining_ms })
}
