//! How many of which products: what is bought, sent or put back.

use std::collections::HashSet;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::ids::ProductId;

/// How many of a product: 1 to [`Quantity::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Quantity(u16);

/// A number that is no [`Quantity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not from 1 to {max}", max = Quantity::MAX)]
pub struct NoQuantity(i64);

impl Quantity {
    /// Most of one product in an order or a cart.
    pub const MAX: u32 = 999;
    pub const ONE: Self = Self(1);
}

impl TryFrom<i64> for Quantity {
    type Error = NoQuantity;

    fn try_from(number: i64) -> Result<Self, NoQuantity> {
        let quantity =
            u16::try_from(number).ok().filter(|quantity| (1..=Self::MAX).contains(&(*quantity).into()));
        quantity.map(Self).ok_or(NoQuantity(number))
    }
}

impl TryFrom<u32> for Quantity {
    type Error = NoQuantity;

    fn try_from(number: u32) -> Result<Self, NoQuantity> {
        i64::from(number).try_into()
    }
}

/// A column that holds another number is of a corrupt row.
#[cfg(feature = "sqlx")]
impl TryFrom<i32> for Quantity {
    type Error = sqlx::Error;

    fn try_from(number: i32) -> Result<Self, sqlx::Error> {
        i64::from(number).try_into().map_err(|error: NoQuantity| sqlx::Error::Decode(error.into()))
    }
}

macro_rules! into_numbers {
    ($($number:ident),+) => {$(
        impl From<Quantity> for $number {
            fn from(quantity: Quantity) -> Self {
                quantity.0.into()
            }
        }
    )+};
}

into_numbers!(u32, i32, i64);

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Quantity {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
            .minimum(Some(1))
            .maximum(Some(Self::MAX))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Quantity {}

/// So many of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = OrderLine))]
pub struct Line {
    #[cfg_attr(feature = "openapi", schema(inline))]
    pub product_id: ProductId,
    #[cfg_attr(feature = "openapi", schema(inline))]
    pub quantity: Quantity,
}

/// Most different products in an order or a cart.
pub const MAX_LINES: usize = 100;

/// At least one line and at most [`MAX_LINES`], each of another product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines(Vec<Line>);

/// What is wrong with lines. The number is the line's place, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLines {
    #[error("there is no line")]
    Empty,
    #[error("there are more than {MAX_LINES} lines")]
    TooMany,
    #[error("the quantity of line {0} is not from 1 to {max}", max = Quantity::MAX)]
    Quantity(usize),
    #[error("line {0} is of a product that an earlier one is of")]
    Twice(usize),
}

impl Lines {
    /// Lines of products and numbers, or all that is wrong with them.
    pub fn parse(lines: impl IntoIterator<Item = (ProductId, u32)>) -> Result<Self, Vec<NoLines>> {
        let (mut good, mut wrong, mut products) = (Vec::new(), Vec::new(), HashSet::new());
        let mut count = 0;
        for (index, (product_id, quantity)) in lines.into_iter().enumerate() {
            count = index + 1;
            match Quantity::try_from(quantity) {
                Ok(quantity) => good.push(Line { product_id, quantity }),
                Err(_) => wrong.push(NoLines::Quantity(index)),
            }
            if !products.insert(product_id) {
                wrong.push(NoLines::Twice(index));
            }
        }
        match count {
            0 => wrong.insert(0, NoLines::Empty),
            1..=MAX_LINES => {}
            _ => wrong.insert(0, NoLines::TooMany),
        }
        if wrong.is_empty() { Ok(Self(good)) } else { Err(wrong) }
    }

    /// Whether these are the lines of `others`, in whatever order.
    pub fn are(&self, others: &[Line]) -> bool {
        self.0.len() == others.len() && self.0.iter().all(|line| others.contains(line))
    }
}

impl TryFrom<Vec<Line>> for Lines {
    /// The first thing that is wrong.
    type Error = NoLines;

    fn try_from(lines: Vec<Line>) -> Result<Self, NoLines> {
        let lines = Self::parse(lines.into_iter().map(|line| (line.product_id, line.quantity.into())));
        lines.map_err(|wrong| wrong.into_iter().next().unwrap_or(NoLines::Empty))
    }
}

impl From<Lines> for Vec<Line> {
    fn from(lines: Lines) -> Self {
        lines.0
    }
}

impl Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn product(n: u128) -> ProductId {
        Uuid::from_u128(n).into()
    }

    #[test]
    fn a_quantity_is_from_1_to_999() {
        for good in [1, 2, 999] {
            assert_eq!(Quantity::try_from(good as u32).map(i64::from), Ok(good));
            assert_eq!(serde_json::from_str::<Quantity>(&good.to_string()).map(i64::from).unwrap(), good);
        }
        for bad in [0, -1, 1000, 65_537, i64::MAX] {
            assert_eq!(Quantity::try_from(bad), Err(NoQuantity(bad)));
            assert!(serde_json::from_str::<Quantity>(&bad.to_string()).is_err(), "{bad}");
        }
    }

    #[test]
    fn lines_are_the_same_in_any_order() {
        let lines =
            |lines: &[(u128, u32)]| Lines::parse(lines.iter().map(|(n, q)| (product(*n), *q))).unwrap();
        let two = lines(&[(1, 2), (3, 4)]);
        assert!(two.are(&lines(&[(3, 4), (1, 2)])));
        for other in [&[(1, 2)][..], &[(1, 2), (3, 5)], &[(1, 2), (3, 4), (5, 6)]] {
            assert!(!two.are(&lines(other)), "{other:?}");
        }
    }

    #[test]
    fn lines_are_some_and_of_a_product_each() {
        assert_eq!(Lines::parse([]), Err(vec![NoLines::Empty]));
        let most = (0..100).map(|n| (product(n), 1));
        assert_eq!(Lines::parse(most.clone()).unwrap().len(), 100);
        assert_eq!(Lines::parse(most.chain([(product(100), 1)])), Err(vec![NoLines::TooMany]));
        let lines = [(product(1), 0), (product(2), 1), (product(1), 1000)];
        assert_eq!(
            Lines::parse(lines),
            Err(vec![NoLines::Quantity(0), NoLines::Quantity(2), NoLines::Twice(2)])
        );
    }
}
