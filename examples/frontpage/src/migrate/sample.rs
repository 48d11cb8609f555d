//! Sample data that looks like a month of a lively site: the same every time, ending now.
//!
//! A few stories get most of the votes and most of the talk, as on any real site. Everything comes from one seeded
//! sequence of numbers, so two databases differ only in what time it is.

use std::time::{Duration, SystemTime};

use super::words;
use crate::error::SecretError;
use crate::secret;

const USERS: usize = 500;
const STORIES: usize = 2_000;
const COMMENTS: usize = 10_000;
const VOTES: usize = 40_000;
/// No story is liked by everyone.
const MOST_VOTES: usize = 420;
const DAYS: u64 = 30;
const DAY: u64 = 86_400;
/// With this password anyone may log in as any sample user.
const PASSWORD: &str = "sample password";

/// The rows of all tables. Ids count from 1, and older rows have smaller ones.
pub struct Sample {
    pub users: Vec<User>,
    pub stories: Vec<Story>,
    pub comments: Vec<Comment>,
    pub votes: Vec<Vote>,
}

pub struct User {
    pub id: i64,
    pub name: String,
    pub created_at: SystemTime,
}

pub struct Story {
    pub id: i64,
    pub user_id: i64,
    pub title: String,
    pub url: Option<String>,
    pub domain: Option<String>,
    pub body: String,
    pub points: i32,
    pub comment_count: i32,
    pub created_at: SystemTime,
}

pub struct Comment {
    pub id: i64,
    pub story_id: i64,
    pub parent_id: Option<i64>,
    pub user_id: i64,
    pub body: String,
    pub created_at: SystemTime,
}

pub struct Vote {
    pub user_id: i64,
    pub story_id: i64,
    pub created_at: SystemTime,
}

/// The hash that all sample users share: one hash takes 20 ms, five hundred would take ten seconds.
///
/// # Errors
/// When no salt can be made.
pub fn password_hash() -> Result<String, SecretError> {
    secret::hash_password(PASSWORD)
}

impl Sample {
    /// The sample whose last moment is `now`.
    pub fn new(now: SystemTime) -> Self {
        let mut dice = Dice(0x5eed_f407);
        let users = users(&mut dice, now);
        let mut stories = stories(&mut dice, now);
        let votes = votes(&mut dice, now, &mut stories);
        let comments = comments(&mut dice, now, &mut stories);
        Self { users, stories, comments, votes }
    }
}

fn users(dice: &mut Dice, now: SystemTime) -> Vec<User> {
    let names = words::user_names().take(USERS);
    let mut ages: Vec<u64> = (0..USERS).map(|_| dice.below(DAY * 400) + DAY * DAYS).collect();
    ages.sort_unstable_by(|left, right| right.cmp(left));
    let numbered = (1..).zip(names.zip(ages));
    numbered.map(|(id, (name, age))| User { id, name, created_at: before(now, age) }).collect()
}

fn stories(dice: &mut Dice, now: SystemTime) -> Vec<Story> {
    let mut ages: Vec<u64> = (0..STORIES).map(|_| dice.below(DAYS * DAY)).collect();
    ages.sort_unstable_by(|left, right| right.cmp(left));
    let numbered = (1..).zip(ages);
    numbered
        .map(|(id, age)| {
            let words = words::story(dice, id);
            Story {
                id,
                user_id: someone(dice),
                title: words.title,
                url: words.url,
                domain: words.domain,
                body: words.body,
                points: 0,
                comment_count: 0,
                created_at: before(now, age),
            }
        })
        .collect()
}

/// How many votes each story gets: the story in place `n` of an arbitrary order about `1 / n` of the first one's.
fn popularity(dice: &mut Dice) -> Vec<usize> {
    let mut counts: Vec<usize> = (1..=STORIES).map(|place| (6_000 / place).clamp(1, MOST_VOTES)).collect();
    // The rest goes one by one to the middle of the field, so that the total is exact.
    let missing = VOTES - counts.iter().sum::<usize>();
    for place in (STORIES / 4..STORIES * 3 / 4).cycle().take(missing) {
        counts[place] += 1;
    }
    dice.shuffle(&mut counts);
    counts
}

fn votes(dice: &mut Dice, now: SystemTime, stories: &mut [Story]) -> Vec<Vote> {
    let counts = popularity(dice);
    let mut people: Vec<i64> = (1..=USERS as i64).collect();
    let mut votes = Vec::with_capacity(VOTES);
    for (story, count) in stories.iter_mut().zip(counts) {
        // The author votes first, the others are drawn without putting anyone back.
        let author = people.iter().position(|user| *user == story.user_id).unwrap_or_default();
        people.swap(0, author);
        for place in 0..count {
            if place > 0 {
                let drawn = place + dice.below((USERS - place) as u64) as usize;
                people.swap(place, drawn);
            }
            let delay = if place == 0 { 0 } else { dice.soon() };
            votes.push(Vote {
                user_id: people[place],
                story_id: story.id,
                created_at: after(story.created_at, delay, now),
            });
        }
        story.points = count as i32;
    }
    // In the order of their index, which then grows at its end only.
    votes.sort_unstable_by_key(|vote| (vote.user_id, vote.story_id));
    votes
}

fn comments(dice: &mut Dice, now: SystemTime, stories: &mut [Story]) -> Vec<Comment> {
    // Each story's place in a line as long as all points together: a random spot falls on a popular story more often.
    let line: Vec<usize> = stories
        .iter()
        .enumerate()
        .flat_map(|(place, story)| std::iter::repeat_n(place, story.points as usize))
        .collect();
    let mut of_story: Vec<Vec<usize>> = vec![Vec::new(); stories.len()];
    let mut comments: Vec<Comment> = Vec::with_capacity(COMMENTS);
    for place in 0..COMMENTS {
        let about = *dice.pick(&line);
        let story = &mut stories[about];
        let earlier = &of_story[about];
        let parent = (!earlier.is_empty() && dice.below(100) < 65).then(|| *dice.pick(earlier));
        let since = parent.map_or(story.created_at, |parent| comments[parent].created_at);
        comments.push(Comment {
            id: 0,
            story_id: story.id,
            // For now a place in this list; ids are given when the order is known.
            parent_id: parent.map(|parent| parent as i64),
            user_id: someone(dice),
            body: words::comment(dice),
            created_at: after(since, dice.soon(), now),
        });
        of_story[about].push(place);
        story.comment_count += 1;
    }
    numbered_by_age(comments)
}

/// Gives ids in the order of time. An answer is never older than what it answers, and comes later in the list, so a
/// stable order keeps its id above its parent's.
fn numbered_by_age(mut comments: Vec<Comment>) -> Vec<Comment> {
    let mut order: Vec<usize> = (0..comments.len()).collect();
    order.sort_by_key(|&place| comments[place].created_at);
    let mut ids = vec![0; comments.len()];
    for (id, &place) in (1..).zip(&order) {
        ids[place] = id;
    }
    for (comment, id) in comments.iter_mut().zip(&ids) {
        comment.id = *id;
        comment.parent_id = comment.parent_id.map(|place| ids[place as usize]);
    }
    comments.sort_unstable_by_key(|comment| comment.id);
    comments
}

fn someone(dice: &mut Dice) -> i64 {
    // The smaller of two: some people take part far more than others.
    let first = dice.below(USERS as u64);
    first.min(dice.below(USERS as u64)) as i64 + 1
}

fn before(now: SystemTime, seconds: u64) -> SystemTime {
    now - Duration::from_secs(seconds)
}

fn after(then: SystemTime, seconds: u64, now: SystemTime) -> SystemTime {
    (then + Duration::from_secs(seconds)).min(now)
}

/// Numbers that look random and are the same every time (the SplitMix64 sequence).
pub struct Dice(u64);

impl Dice {
    /// A number from 0 up to, but not including, `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// Seconds until something happens: mostly within hours, now and then days.
    fn soon(&mut self) -> u64 {
        let within = [HOUR, 4 * HOUR, 12 * HOUR, 3 * DAY][self.below(4) as usize];
        self.below(within)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for place in (1..items.len()).rev() {
            items.swap(place, self.below(place as u64 + 1) as usize);
        }
    }
}

const HOUR: u64 = 3_600;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn sample() -> Sample {
        Sample::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
    }

    #[test]
    fn the_sample_is_consistent() {
        let sample = sample();
        assert_eq!(sample.users.len(), USERS);
        assert_eq!(sample.stories.len(), STORIES);
        assert_eq!(sample.comments.len(), COMMENTS);
        assert_eq!(sample.votes.len(), VOTES);

        let names: HashSet<_> = sample.users.iter().map(|user| &user.name).collect();
        assert_eq!(names.len(), USERS);
        let pairs: HashSet<_> = sample.votes.iter().map(|vote| (vote.user_id, vote.story_id)).collect();
        assert_eq!(pairs.len(), VOTES);
        assert!(sample.stories.iter().all(|story| pairs.contains(&(story.user_id, story.id))));
        let points: i32 = sample.stories.iter().map(|story| story.points).sum();
        assert_eq!(points as usize, VOTES);
        for comment in &sample.comments {
            let Some(parent) = comment.parent_id else { continue };
            assert!(parent < comment.id);
            assert_eq!(sample.comments[parent as usize - 1].story_id, comment.story_id);
        }
    }

    #[test]
    fn a_tenth_of_the_stories_get_most_votes_and_titles_rarely_repeat() {
        let sample = sample();
        let mut points: Vec<i32> = sample.stories.iter().map(|story| story.points).collect();
        points.sort_unstable_by(|left, right| right.cmp(left));
        let top: i32 = points.iter().take(STORIES / 10).sum();
        assert!(top as usize > VOTES / 2, "{top}");
        let titles: HashSet<_> = sample.stories.iter().map(|story| &story.title).collect();
        assert!(titles.len() > STORIES * 3 / 4, "{}", titles.len());
    }

    #[test]
    fn the_sample_is_the_same_every_time_and_fits_the_rules_for_people() {
        let (one, other) = (sample(), sample());
        for (one, other) in one.stories.iter().zip(&other.stories) {
            assert_eq!((&one.title, &one.url, one.points), (&other.title, &other.url, other.points));
            assert!((3..=120).contains(&one.title.chars().count()), "{}", one.title);
            if let Some(url) = &one.url {
                let link = crate::text::WebUrl::parse(url).unwrap();
                assert_eq!(Some(link.domain), one.domain);
            }
        }
        assert!(one.users.iter().all(|user| crate::text::user_name(&user.name).as_ref() == Ok(&user.name)));
    }
}
