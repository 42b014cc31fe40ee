//! What does not change while a date is on sale: its seats, which of them stand side by side, and their order from the
//! best on. By that order: where so many free seats in a row begin.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use boxoffice_domain::SeatNumber;

use super::bits::Bits;
use super::seats::SeatInfo;

/// Seats are named by their position in `infos`, which is by number.
pub(super) struct Layout {
    pub(super) infos: Arc<[SeatInfo]>,
    by_number: HashMap<SeatNumber, usize>,
    /// Whether the next seat has the next number in the same section, row and grade.
    joined: Vec<bool>,
    /// By price, the highest first, then by number.
    overall: Order,
    /// The same within each grade, one grade after another.
    by_grade: Order,
    grades: HashMap<Arc<str>, Range<usize>>,
}

/// An order of all seats, both ways.
struct Order {
    seats: Vec<u32>,
    places: Vec<u32>,
}

impl Order {
    fn new(seats: Vec<u32>) -> Self {
        let mut places = vec![0; seats.len()];
        for (place, &seat) in seats.iter().enumerate() {
            places[seat as usize] = place as u32;
        }
        Self { seats, places }
    }
}

impl Layout {
    pub(super) fn new(infos: Arc<[SeatInfo]>) -> Self {
        let by_number = infos.iter().enumerate().map(|(at, info)| (info.number, at)).collect();
        let is_joined = |pair: &[SeatInfo]| {
            let [one, next] = pair else { return false };
            next.number == one.number + 1 && next.section == one.section && next.row == one.row && next.grade == one.grade
        };
        let joined = infos.windows(2).map(is_joined).chain([false]).take(infos.len()).collect();
        let mut seats: Vec<u32> = (0..infos.len() as u32).collect();
        // The sort is stable, and `infos` is by number.
        seats.sort_by_key(|&at| std::cmp::Reverse(infos[at as usize].price));
        let mut graded = seats.clone();
        graded.sort_by(|&one, &other| infos[one as usize].grade.cmp(&infos[other as usize].grade));
        let mut grades: HashMap<Arc<str>, Range<usize>> = HashMap::new();
        for (place, &seat) in graded.iter().enumerate() {
            let grade = infos[seat as usize].grade.clone();
            grades.entry(grade).or_insert(place..place).end = place + 1;
        }
        Self { overall: Order::new(seats), by_grade: Order::new(graded), infos, by_number, joined, grades }
    }

    pub(super) fn len(&self) -> usize {
        self.infos.len()
    }

    pub(super) fn seat(&self, number: SeatNumber) -> Option<usize> {
        self.by_number.get(&number).copied()
    }

    pub(super) fn is_of(&self, seat: usize, grade: Option<&str>) -> bool {
        grade.is_none_or(|grade| *self.infos[seat].grade == *grade)
    }

    /// Whether `count` seats from `first` on stand side by side.
    pub(super) fn is_row(&self, first: usize, count: usize) -> bool {
        first + count <= self.len() && self.joined[first..first + count - 1].iter().all(|joined| *joined)
    }

    /// The rows of `count` seats that `seat` is one of, by their first seats.
    pub(super) fn rows_around(&self, seat: usize, count: usize) -> impl Iterator<Item = usize> + '_ {
        (seat.saturating_sub(count - 1)..=seat).filter(move |&first| self.is_row(first, count))
    }

    /// Where the seats of a grade stand in their order, or all seats in theirs. Empty for a grade that is not there.
    pub(super) fn places(&self, grade: Option<&str>) -> Range<usize> {
        match grade {
            None => 0..self.len(),
            Some(grade) => self.grades.get(grade).cloned().unwrap_or(0..0),
        }
    }
}

/// Where rows of `count` seats begin that are all open, by the places of their first seats.
pub(super) struct Starts {
    count: usize,
    overall: Bits,
    by_grade: Bits,
}

impl Starts {
    pub(super) fn new(layout: &Layout, open: &[bool], count: usize) -> Self {
        let mut starts = Self { count, overall: Bits::new(layout.len()), by_grade: Bits::new(layout.len()) };
        let mut run = 0;
        for seat in (0..layout.len()).rev() {
            run = match (open[seat], layout.joined[seat]) {
                (false, _) => 0,
                (true, false) => 1,
                (true, true) => run + 1,
            };
            if run >= count {
                starts.insert(layout, seat);
            }
        }
        starts
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// After `seat` was opened or closed. Costs about `count` steps.
    pub(super) fn update(&mut self, layout: &Layout, open: &[bool], seat: usize) {
        let count = self.count;
        if !open[seat] {
            for first in seat.saturating_sub(count - 1)..=seat {
                self.remove(layout, first);
            }
            return;
        }
        let before = (seat.saturating_sub(count - 1)..seat).rev().take_while(|&at| open[at] && layout.joined[at]).count();
        let mut end = seat + 1;
        while end < layout.len() && end < seat + count && layout.joined[end - 1] && open[end] {
            end += 1;
        }
        for first in seat - before..=seat {
            if first + count <= end {
                self.insert(layout, first);
            }
        }
    }

    fn insert(&mut self, layout: &Layout, seat: usize) {
        self.overall.insert(layout.overall.places[seat] as usize);
        self.by_grade.insert(layout.by_grade.places[seat] as usize);
    }

    fn remove(&mut self, layout: &Layout, seat: usize) {
        self.overall.remove(layout.overall.places[seat] as usize);
        self.by_grade.remove(layout.by_grade.places[seat] as usize);
    }

    /// The best row whose first seat stands at `from` or behind it, within `places`: its place and its first seat.
    pub(super) fn first(&self, layout: &Layout, grade: Option<&str>, places: &Range<usize>, from: usize) -> Option<(usize, usize)> {
        let (bits, order) = match grade {
            None => (&self.overall, &layout.overall),
            Some(_) => (&self.by_grade, &layout.by_grade),
        };
        let place = bits.first_from(from.max(places.start)).filter(|place| places.contains(place))?;
        Some((place, order.seats[place] as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three rows of different length, grade and price, with a gap in the numbers and a price that changes in a row.
    fn layout() -> Layout {
        let seat = |number: SeatNumber| {
            let (row, grade, price) = match number {
                1..=7 => ("1", "R", if number > 4 { 300 } else { 100 }),
                8..=20 => ("2", "S", 200),
                _ => ("2", "S", 400),
            };
            SeatInfo { number, section: None, row: Some(row.into()), grade: grade.into(), price }
        };
        Layout::new((1..=14).chain(16..=24).map(seat).collect())
    }

    #[test]
    fn updated_starts_equal_starts_built_anew() {
        let layout = layout();
        let mut open = vec![true; layout.len()];
        for count in [1, 2, 3, 5, 9] {
            let mut kept = Starts::new(&layout, &open, count);
            let mut number = count;
            for _ in 0..2_000 {
                number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let seat = (number >> 33) % layout.len();
                open[seat] = !open[seat];
                kept.update(&layout, &open, seat);
                let anew = Starts::new(&layout, &open, count);
                assert_eq!(format!("{:?}{:?}", kept.overall, kept.by_grade), format!("{:?}{:?}", anew.overall, anew.by_grade));
                for grade in [None, Some("R"), Some("S"), Some("T")] {
                    let places = layout.places(grade);
                    let free = |&first: &usize| {
                        layout.is_of(first, grade) && layout.is_row(first, count) && open[first..first + count].iter().all(|open| *open)
                    };
                    let best = (0..layout.len()).filter(free).min_by_key(|&at| (std::cmp::Reverse(layout.infos[at].price), at));
                    assert_eq!(kept.first(&layout, grade, &places, 0).map(|found| found.1), best, "{count} of {grade:?}");
                }
            }
        }
    }

    #[test]
    fn rows_end_where_numbers_rows_or_grades_do() {
        let layout = layout();
        assert!(layout.is_row(0, 7) && !layout.is_row(0, 8), "another row");
        assert!(layout.is_row(7, 7) && !layout.is_row(7, 8), "there is no seat 15");
        assert!(!layout.is_row(layout.len() - 1, 2));
        assert_eq!(layout.rows_around(6, 3).collect::<Vec<_>>(), [4]);
        assert_eq!(layout.rows_around(0, 2).collect::<Vec<_>>(), [0]);
    }
}
