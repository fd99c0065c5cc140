-- What is shown of the cinemas: a plain view and five materialized ones. It belongs to
-- the same transaction as cinema.sql.

-- step: auditorium_with_future_events_view
-- The last 30 days count too, so that an auditorium does not drop out for a while when
-- its programme is late. Screenings to come are counted apart.
create materialized view cinema.auditorium_with_future_events_view as
select
  event.venue_id,
  event.auditorium_id,
  count(*) filter (where event.start_time > now()) as future_event_count,
  min(event.start_time) filter (where event.start_time > now()) as next_event_at,
  max(event.start_time) as last_event_at
from cinema.event
where event.start_time > now() - interval '30 days'
  and event.cancelled_at is null
group by event.venue_id, event.auditorium_id;

create unique index on cinema.auditorium_with_future_events_view (auditorium_id);

-- step: venue_auditorium_seat_count_view
create materialized view cinema.venue_auditorium_seat_count_view as
select auditorium.venue_id, auditorium.id as auditorium_id, count(seat.id) as seat_count
from cinema.auditorium
left join cinema.seat on seat.auditorium_id = auditorium.id
group by auditorium.id;

create unique index on cinema.venue_auditorium_seat_count_view (auditorium_id);

-- the two views above feed the next one
analyze cinema.auditorium_with_future_events_view, cinema.venue_auditorium_seat_count_view;

-- step: venue_view
-- Reads the two views above: refreshed before them, it would show their old contents.
create materialized view cinema.venue_view as
select
  venue.id,
  venue.name,
  venue.cinema_id,
  cinema.name as cinema_name,
  venue.country,
  google_place.address,
  google_place.latitude,
  google_place.longitude,
  google_place.time_zone,
  programme.auditorium_count,
  programme.seat_count,
  programme.future_event_count,
  programme.next_event_at,
  programme.auditoriums
from cinema.venue
join cinema.cinema on cinema.id = venue.cinema_id
left join cinema.google_place on google_place.id = venue.google_place_id
join (
  select
    showing.venue_id,
    count(*) as auditorium_count,
    sum(seats.seat_count)::bigint as seat_count,
    sum(showing.future_event_count)::bigint as future_event_count,
    min(showing.next_event_at) as next_event_at,
    jsonb_agg(
      jsonb_build_object(
        'id', showing.auditorium_id,
        'seats', seats.seat_count,
        'future_events', showing.future_event_count
      )
      order by showing.auditorium_id
    ) as auditoriums
  from cinema.auditorium_with_future_events_view as showing
  join cinema.venue_auditorium_seat_count_view as seats on seats.auditorium_id = showing.auditorium_id
  group by showing.venue_id
) as programme on programme.venue_id = venue.id;

create unique index on cinema.venue_view (id);

-- step: past_event
-- For a table that keeps all of it and is kept up to date for a week: each screening's
-- tickets are summed up by themselves, so that few screenings take little time.
create view cinema.past_event as
select
  event.id,
  event.venue_id,
  event.auditorium_id,
  event.movie_id,
  event.movie_title,
  event.start_time,
  coalesce(ticket.ticket_count, 0) as ticket_count,
  coalesce(ticket.revenue_cents, 0) as revenue_cents
from cinema.event
cross join lateral (
  select
    sum(case change.state when 'sold' then change.ticket_count else -change.ticket_count end) as ticket_count,
    sum(change.price_cents * case change.state when 'sold' then change.ticket_count else -change.ticket_count end) as revenue_cents
  from cinema.event_seat_state_change as change
  where change.event_id = event.id
) as ticket
where event.start_time <= now()
  and event.cancelled_at is null;

-- step: future_event_view
create materialized view cinema.future_event_view as
select
  event.id,
  event.venue_id,
  venue.name as venue_name,
  venue.country,
  event.auditorium_id,
  event.movie_id,
  event.movie_title,
  event.start_time,
  event.url
from cinema.event
join cinema.venue on venue.id = event.venue_id
where event.start_time > now()
  and event.cancelled_at is null;

create unique index on cinema.future_event_view (id);

-- step: ticket_count_by_country_and_day_view
-- Left unfilled: it cannot be queried until its first refresh. The day is the
-- screening's, at the venue.
create materialized view cinema.ticket_count_by_country_and_day_view as
select
  venue.country,
  (event.start_time at time zone coalesce(google_place.time_zone, 'UTC'))::date as day,
  count(*) as event_count,
  sum(ticket.ticket_count)::bigint as ticket_count,
  sum(ticket.revenue_cents)::bigint as revenue_cents
from (
  select
    change.event_id,
    sum(case change.state when 'sold' then change.ticket_count else -change.ticket_count end) as ticket_count,
    sum(change.price_cents * case change.state when 'sold' then change.ticket_count else -change.ticket_count end) as revenue_cents
  from cinema.event_seat_state_change as change
  group by change.event_id
) as ticket
join cinema.event on event.id = ticket.event_id
join cinema.venue on venue.id = event.venue_id
left join cinema.google_place on google_place.id = venue.google_place_id
group by 1, 2
with no data;

create unique index on cinema.ticket_count_by_country_and_day_view (country, day);

-- step: statistics of the views
analyze cinema.venue_view, cinema.future_event_view;
