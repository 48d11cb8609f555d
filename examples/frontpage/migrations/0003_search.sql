ALTER TABLE stories ADD COLUMN search tsvector NOT NULL GENERATED ALWAYS AS (
    setweight(to_tsvector('english', title), 'A')
    || setweight(to_tsvector('simple', coalesce(domain, '')), 'B')
    || setweight(to_tsvector('english', body), 'C')
) STORED;
CREATE INDEX stories_by_search ON stories USING gin (search);
