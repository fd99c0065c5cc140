-- step: materialize_event_seat_state_change
-- The article's function as it was printed. Its names are not qualified.
set local search_path = cinema;

CREATE OR REPLACE FUNCTION materialize_event_seat_state_change()
RETURNS void
AS $$
BEGIN
  WITH
    event_seat_state_count AS (
      SELECT
        essc1.id,
        count(*)::smallint seat_count,
        count(*) FILTER (WHERE ss1.nid = 'BLOCKED')::smallint seat_blocked_count,
        count(*) FILTER (WHERE ss1.nid = 'BROKEN')::smallint seat_broken_count,
        count(*) FILTER (WHERE ss1.nid = 'EMPTY')::smallint seat_empty_count,
        count(*) FILTER (WHERE ss1.nid = 'HOUSE')::smallint seat_house_count,
        count(*) FILTER (WHERE ss1.nid = 'SOLD')::smallint seat_sold_count,
        count(*) FILTER (WHERE ss1.nid = 'UNKNOWN')::smallint seat_unknown_count,
        count(*) FILTER (WHERE ss1.id IS NULL)::smallint seat_unmapped_count,
        count(*) FILTER (WHERE ss1.nid IN ('BLOCKED', 'BROKEN', 'HOUSE', 'SOLD', 'UNKNOWN')) seat_unavailable_count
      FROM event e1
      LEFT JOIN event_seat_state_change essc1 ON essc1.event_id = e1.id
      LEFT JOIN event_seat_state_change_seat_state esscss1 ON esscss1.event_seat_state_change_id = essc1.id
      LEFT JOIN cinema_foreign_seat_state fcss1 ON fcss1.id = cinema_foreign_seat_state_id
      LEFT JOIN seat_state ss1 ON ss1.id = fcss1.seat_state_id
      WHERE
        essc1.id IN (
          SELECT id
          FROM event_seat_state_change
          WHERE
            materialized_at IS NULL
          ORDER BY materialized_at DESC
          LIMIT 100
        )
      GROUP BY essc1.id
    )
    UPDATE event_seat_state_change essc1
    SET
      materialized_at = now(),
      seat_count = essc2.seat_count,
      seat_blocked_count = essc2.seat_blocked_count,
      seat_broken_count = essc2.seat_broken_count,
      seat_empty_count = essc2.seat_empty_count,
      seat_house_count = essc2.seat_house_count,
      seat_sold_count = essc2.seat_sold_count,
      seat_unknown_count = essc2.seat_unknown_count,
      seat_unmapped_count = essc2.seat_unmapped_count
    FROM event_seat_state_count essc2
    WHERE
      essc1.id = essc2.id;
END
$$
LANGUAGE plpgsql
SET work_mem='1GB'
SET max_parallel_workers_per_gather=4;
