//! A dump as a flamegraph: the widths are work.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::flamegraph::label;
use crate::flamegraph::picture::{GREY, Picture, Tile, share};
use crate::report::render::flamegraph::{State, boxes};
use crate::report::{Dump, DumpGroup, DumpPath, DumpState};
use crate::text::time::timestamp;
use crate::text::units::duration;

/// The most characters of the title and of the line below it.
const MAX_TITLE: usize = 90;
const MAX_SUBTITLE: usize = 160;
/// A picture of more places has those with the most work.
const MAX_GROUPS: usize = 200;

impl Dump {
    /// Returns the dump as a flamegraph: an SVG that shows where the work is. A box is as wide as the number of requests,
    /// jobs and pieces of child work that are in that function. The row below the whole says what they do. Below are the
    /// stacks, outermost frame first, as in [`Report::to_svg`](crate::Report::to_svg): "87 of 90 wait in
    /// `checkout_connection`".
    #[must_use]
    pub fn to_svg(&self) -> String {
        let drawn = catch_unwind(AssertUnwindSafe(|| self.draw())).ok().flatten();
        drawn.unwrap_or_else(|| {
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1200\" height=\"60\"><text x=\"20\" y=\"36\" \
             font-family=\"monospace\" font-size=\"14\">no flamegraph could be drawn</text></svg>\n"
                .to_owned()
        })
    }

    fn draw(&self) -> Option<String> {
        let whole: u64 = self.groups.iter().map(|group| group.count).sum();
        let mut tiles: Vec<Tile> = Vec::new();
        for group in self.groups.iter().take(MAX_GROUPS) {
            let mut unknown = group.count;
            for path in &group.paths {
                unknown = unknown.saturating_sub(path.count);
                add(&mut tiles, group, Some(path), path.count, whole);
            }
            if unknown > 0 {
                add(&mut tiles, group, None, unknown, whole);
            }
        }
        if tiles.is_empty() {
            // inferno doesn't draw an empty picture.
            let label = "nothing is in flight".to_owned();
            tiles.push(Tile { label, figures: String::new(), color: GREY, width: 1, children: Vec::new() });
        }
        sort(&mut tiles);
        for tile in &mut tiles {
            // The legend, which must be readable without a mouse.
            tile.label = format!("{}: {}", tile.label, tile.width);
        }
        let title = format!("{} in flight, by place", self.in_flight);
        let process = &self.process;
        let subtitle = [
            process.executable.rsplit('/').next().unwrap_or_default().to_owned(),
            process.hostname.clone(),
            timestamp(self.taken_at),
        ];
        Picture {
            title: label::safe(&title, MAX_TITLE),
            subtitle: Some(label::safe(&subtitle.join(" · "), MAX_SUBTITLE)),
            whole: format!("all: {whole} in flight"),
            tiles: &tiles,
        }
        .paint()
    }
}

/// Adds the boxes of so much work of a group, which came there by that path.
fn add(tiles: &mut Vec<Tile>, group: &DumpGroup, way: Option<&DumpPath>, many: u64, whole: u64) {
    let state = state(group.state);
    let awaiting = group.awaiting.as_ref().map(|awaiting| format!(" for {awaiting}")).unwrap_or_default();
    let mut path = vec![(label::text(group.state.as_str()), true)];
    let stack = way.and_then(|way| way.stacks.iter().find(|stack| stack.current));
    path.extend(stack.map(boxes).unwrap_or_default());
    path.push((label::text(&format!("{}{awaiting}, the oldest for {}", group.state, duration(group.oldest))), false));
    let mut level = tiles;
    for (label, own) in path {
        let color = state.color(own);
        let known = level.iter().position(|tile| tile.label == label && tile.color == color);
        let at = known.unwrap_or_else(|| {
            level.push(Tile { label, figures: String::new(), color, width: 0, children: Vec::new() });
            level.len() - 1
        });
        let tile = &mut level[at];
        tile.width += many;
        tile.figures = format!("{} of {whole}, {}", tile.width, share(tile.width, whole));
        level = &mut tile.children;
    }
}

/// The widest first, so that the left is where to look.
fn sort(tiles: &mut [Tile]) {
    tiles.sort_by_key(|tile| std::cmp::Reverse(tile.width));
    tiles.iter_mut().for_each(|tile| sort(&mut tile.children));
}

const fn state(state: DumpState) -> State {
    match state {
        DumpState::Blocked => State::Blocked,
        DumpState::Running => State::OnCpu,
        DumpState::Polled => State::Running,
        DumpState::Woken => State::Runnable,
        DumpState::Waiting | DumpState::NoWaker => State::Waiting,
        DumpState::Yielding => State::Yielding,
        DumpState::New | DumpState::Unknown => State::Unobserved,
    }
}
