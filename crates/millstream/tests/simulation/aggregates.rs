//! What a run makes of its clicks and keeps of them: the topology's own functions, which the model repeats click by click.

use millstream::serdes::{Deserializer, Rejection, Serializer};

/// The ad of a click's text, `<ad>/<amount>`.
pub(crate) fn ad_of<'x>(text: &'x &str) -> &'x str {
    text.split_once('/').map_or(text, |(ad, _)| ad)
}

fn amount_of(text: &str) -> i64 {
    text.split_once('/').and_then(|(_, amount)| amount.parse().ok()).unwrap_or(0)
}

/// What comes out of a click where one does not come to one: none to three, some without a key. With clicks keyed by ad all keys
/// must be the click's own.
pub(crate) fn fan_out(text: &str, keyed: bool) -> Vec<(Option<String>, i64)> {
    let (ad, amount) = (|| Some(ad_of(&text).to_owned()), amount_of(text));
    let another = || if keyed { ad() } else { Some("ad-0".to_owned()) };
    match amount % 8 {
        0 => vec![],
        1 => vec![(None, amount)],
        2 => vec![(ad(), amount), (None, 1)],
        3 => vec![(another(), 1), (ad(), amount)],
        4 => vec![(ad(), amount), (another(), 2), (ad(), 3)],
        _ => vec![(ad(), amount)],
    }
}

/// What there is to add of a value.
pub(crate) trait Amount {
    fn amount(&self) -> i64;
}

impl Amount for &str {
    fn amount(&self) -> i64 {
        amount_of(self)
    }
}

impl Amount for i64 {
    fn amount(&self) -> i64 {
        *self
    }
}

/// What is kept of one ad and window. Where clicks are counted, only how many there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Aggregate {
    pub(crate) count: i64,
    pub(crate) sum: i64,
    pub(crate) largest: i64,
}

impl Aggregate {
    pub(crate) fn of_count(count: i64) -> Self {
        Self { count, ..Self::default() }
    }

    pub(crate) fn add(&mut self, amount: i64) {
        self.merge(Self { count: 1, sum: amount, largest: amount });
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.largest = self.largest.max(other.largest);
    }

    /// Whether this can have come of the other by adding to it.
    pub(crate) fn has_grown_from(&self, before: &Self) -> bool {
        self.count > before.count && self.sum >= before.sum && self.largest >= before.largest
    }
}

/// Three integers, one behind the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AggregateSerde;

impl Serializer<Aggregate> for AggregateSerde {
    fn serialize(&self, value: &Aggregate, into: &mut Vec<u8>) -> bool {
        let Aggregate { count, sum, largest } = value;
        [count, sum, largest].into_iter().for_each(|number| into.extend_from_slice(&number.to_be_bytes()));
        true
    }
}

impl Deserializer for AggregateSerde {
    type Output<'r> = Aggregate;

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<Aggregate, Rejection> {
        let (numbers, []) = bytes.unwrap_or_default().as_chunks::<8>() else { return Err(Rejection::new("not whole")) };
        let &[count, sum, largest] = numbers else { return Err(Rejection::new("not three numbers")) };
        let [count, sum, largest] = [count, sum, largest].map(i64::from_be_bytes);
        Ok(Aggregate { count, sum, largest })
    }
}
