//! The time of a record, cut into equal columns: as many as a page can carry, however long the run was.

use std::ops::Range;

/// Of a chart. More than a screen has pixels for would cost bytes and show nothing.
const MOST: usize = 1_200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// Seconds that one stands for.
    pub step: usize,
    seconds: usize,
}

impl Columns {
    /// `coarseness` times as long as they need to be; 1 is the finest.
    pub fn new(seconds: usize, coarseness: usize) -> Columns {
        Columns { step: seconds.div_ceil(MOST).max(1) * coarseness.max(1), seconds }
    }

    /// At most so many.
    pub fn at_most(seconds: usize, most: usize) -> Columns {
        Columns { step: seconds.div_ceil(most.max(1)).max(1), seconds }
    }

    pub fn count(self) -> usize {
        self.seconds.div_ceil(self.step)
    }

    /// The seconds of each. The last may be shorter.
    pub fn ranges(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.count()).map(move |column| {
            let from = column * self.step;
            from..(from + self.step).min(self.seconds)
        })
    }

    /// `None`: after the end.
    pub fn of_second(self, at: u32) -> Option<usize> {
        let at = at as usize;
        (at < self.seconds).then(|| at / self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_minutes_are_shown_by_the_second_and_half_a_day_is_not() {
        assert_eq!(Columns::new(600, 1), Columns { step: 1, seconds: 600 });
        let long = Columns::new(43_200, 1);
        assert_eq!((long.step, long.count()), (36, 1_200));
        assert_eq!(Columns::new(0, 1).count(), 0);
    }

    #[test]
    fn columns_cover_every_second_once() {
        let columns = Columns::new(10, 4);
        assert_eq!(columns.ranges().collect::<Vec<_>>(), [0..4, 4..8, 8..10]);
        assert_eq!(
            [0, 3, 4, 9, 10].map(|at| columns.of_second(at)),
            [Some(0), Some(0), Some(1), Some(2), None]
        );
    }
}
