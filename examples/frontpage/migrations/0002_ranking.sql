-- Gravity: the worth of a story's points halves every six hours. Written as
--     points / 2 ^ (age / 6 h)
-- it would change every second and no index could hold it. But its logarithm,
--     log2(points) - (now - created_at) / 6 h,
-- loses the same amount for every story as time passes, so `now` can be left out without changing the order.
-- What remains is fixed until the next vote, and an index keeps the front page sorted.
ALTER TABLE stories ADD COLUMN hotness double precision NOT NULL GENERATED ALWAYS AS (
    ln(greatest(points, 1)::double precision) / ln(2.0::double precision)
    + extract(epoch FROM created_at AT TIME ZONE 'UTC')::double precision / 21600.0
) STORED;
CREATE INDEX stories_by_hotness ON stories (hotness DESC, id DESC);
