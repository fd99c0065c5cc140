-- A few minutes in the life of the cinemas. Change (cinema.go) runs each step in one
-- transaction; a step is a single statement that returns how many of what the marker
-- line names it made. The spread over halls and screenings follows from the ids alone.

-- step: auditoriums opened
with site as (
  select venue.id
  from cinema.venue
  order by venue.id
  offset (select max(id) from cinema.auditorium) * 7919::bigint % (select count(*) from cinema.venue)
  limit 1
), opened as (
  insert into cinema.auditorium (venue_id, name)
  select site.id, 'Screen ' || 1 + (select count(*) from cinema.auditorium where auditorium.venue_id = site.id)
  from site
  returning id
), furnished as (
  insert into cinema.seat (auditorium_id, row_number, seat_number)
  select opened.id, seat_row, seat_number
  from opened
  cross join generate_series(1, 10) as seat_row
  cross join generate_series(1, 12) as seat_number
)
select count(*) from opened;

-- step: screenings added
-- Late shows on the coming 14 days; the hall opened last gets the first of them.
with seed as materialized (
  select max(id) as n from cinema.event
), hall as materialized (
  select
    auditorium.id,
    auditorium.venue_id,
    coalesce(google_place.time_zone, 'UTC') as time_zone,
    row_number() over (
      order by
        auditorium.id = (select max(id) from cinema.auditorium) desc,
        (auditorium.id * 7919 + seed.n) % 10007,
        auditorium.id
    ) - 1 as rank,
    count(*) over () as hall_count
  from seed
  cross join cinema.auditorium
  join cinema.venue on venue.id = auditorium.venue_id
  left join cinema.google_place on google_place.id = venue.google_place_id
), screening as materialized (
  select
    nextval(pg_get_serial_sequence('cinema.event', 'id')) as id,
    hall.venue_id,
    hall.id as auditorium_id,
    1 + k % 14 as days_ahead,
    23 * 60 + (seed.n + k) % 12 * 5 as minute,
    hall.time_zone,
    1 + (seed.n + k) % 64 as movie_id
  from seed
  cross join generate_series(0, 499) as k
  join hall on hall.rank = k % hall.hall_count
), added as (
  insert into cinema.event (id, venue_id, auditorium_id, movie_id, movie_title, start_time, url)
  select
    screening.id, screening.venue_id, screening.auditorium_id, movie.id, movie.title,
    ((now() at time zone screening.time_zone)::date + screening.days_ahead
      + make_interval(mins => screening.minute::integer)) at time zone screening.time_zone,
    'https://tickets.example/' || screening.venue_id || '/' || screening.id
  from screening
  join (select movie_id as id, min(movie_title) as title from cinema.event group by movie_id) as movie
    on movie.id = screening.movie_id
  returning id
)
select count(*) from added;

-- step: screenings cancelled
-- Who held a ticket gets the money back.
with cancelled as (
  update cinema.event
  set cancelled_at = now()
  where event.id in (
    select upcoming.id
    from cinema.event as upcoming
    where upcoming.start_time > now() + interval '1 day'
      and upcoming.cancelled_at is null
    order by (upcoming.id * 7919 + (select max(id) from cinema.event)) % 10007, upcoming.id
    limit 100
  )
  returning event.id
), refunded as (
  insert into cinema.event_seat_state_change (event_id, state, ticket_count, price_cents, changed_at)
  select
    change.event_id, 'free',
    sum(case change.state when 'sold' then change.ticket_count else -change.ticket_count end),
    change.price_cents,
    now()
  from cancelled
  join cinema.event_seat_state_change as change on change.event_id = cancelled.id
  group by change.event_id, change.price_cents
  having sum(case change.state when 'sold' then change.ticket_count else -change.ticket_count end) > 0
)
select count(*) from cancelled;

-- step: tickets sold
-- Orders of one to four seats: up to 700 for screenings to come, up to 100 reported late
-- by the box office for last week's. Twice as many screenings are looked at, in case some
-- are nearly full.
with seed as materialized (
  select max(id) as n from cinema.event_seat_state_change
), candidate as (
  (
    select event.id, event.auditorium_id, 700 as wanted
    from cinema.event
    where event.start_time > now()
      and event.cancelled_at is null
    order by (event.id * 7919 + (select n from seed)) % 10007, event.id
    limit 1400
  )
  union all
  (
    select event.id, event.auditorium_id, 100 as wanted
    from cinema.event
    where event.start_time > now() - interval '6 days'
      and event.start_time <= now()
      and event.cancelled_at is null
    order by (event.id * 7919 + (select n from seed)) % 10007, event.id
    limit 200
  )
), roomy as (
  select candidate.id, candidate.wanted, row_number() over (partition by candidate.wanted order by candidate.id) as rank
  from candidate
  cross join lateral (
    select coalesce(sum(case change.state when 'sold' then change.ticket_count else -change.ticket_count end), 0) as n
    from cinema.event_seat_state_change as change
    where change.event_id = candidate.id
  ) as taken
  cross join lateral (
    select count(*) as n
    from cinema.seat
    where seat.auditorium_id = candidate.auditorium_id
  ) as capacity
  where taken.n + 4 <= capacity.n
), sold as (
  insert into cinema.event_seat_state_change (event_id, state, ticket_count, price_cents, changed_at)
  select id, 'sold', 1 + rank % 4, 850 + id * 13 % 12 * 50, now()
  from roomy
  where rank <= wanted
  returning ticket_count
)
select coalesce(sum(ticket_count), 0)::bigint from sold;
