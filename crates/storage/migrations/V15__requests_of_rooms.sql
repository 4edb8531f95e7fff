-- Which request made a room: one that is repeated does not make a second one.
ALTER TABLE rooms ADD COLUMN made_by_request text;
CREATE UNIQUE INDEX rooms_made_by_request ON rooms (made_by_request) WHERE made_by_request IS NOT NULL;
