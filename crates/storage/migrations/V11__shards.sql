-- Rooms belong to other shards from here on. Processes of former versions can't write any more, so that no room has two writers:
-- they end when they find out, and are to be started again in this version.
UPDATE instances SET epoch = epoch + 1;
UPDATE stream_positions p SET epoch = i.epoch FROM instances i WHERE i.writer_id = p.writer_id;
DELETE FROM leases;
