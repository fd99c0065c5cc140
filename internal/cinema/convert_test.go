package cinema

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/mvsched/mvsched/internal/pgtest"
	"github.com/mvsched/mvsched/schedule"
)

// as is what is to stay of a relation and of what reads it, whatever it is.
const as = `
select string_agg(line, e'\n' order by line) from (
  select concat_ws(' ', 'relation', c.relname, c.relowner::regrole, obj_description(c.oid, 'pg_class'),
           array(select a::text from unnest(c.relacl) a where a::text !~ ('^' || c.relowner::regrole || '=') order by 1)) as line
    from pg_class c where c.oid in ('cinema.venue_view'::regclass, 'cinema.venue_overview'::regclass, 'cinema.countries'::regclass)
  union all
  select concat_ws(' ', 'column', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), col_description(a.attrelid, a.attnum), a.attacl)
    from pg_attribute a where a.attrelid in ('cinema.venue_view'::regclass, 'cinema.venue_overview'::regclass) and a.attnum > 0
  union all
  select concat_ws(' ', 'index', indexdef, obj_description(format('%I.%I', schemaname, indexname)::regclass, 'pg_class'))
    from pg_indexes where schemaname = 'cinema' and tablename = 'venue_view'
  union all
  select concat_ws(' ', 'view', viewname, definition, (select c.reloptions from pg_class c where c.oid = format('%I.%I', schemaname, viewname)::regclass))
    from pg_views where schemaname = 'cinema'
  union all
  select 'rows ' || md5(string_agg(v::text, ',' order by v.id)) from cinema.venue_view v
) lines`

// A reader who would have to wait for more than a second gets an error; on a machine with nothing else to do it is some
// milliseconds.
func TestConvertVenueView(t *testing.T) {
	db := pgtest.NewDB(t)
	ctx := t.Context()
	withConn(t, db.Pool, func(conn *pgx.Conn) error { return Load(ctx, conn, 0.02, nil) })
	role := db.Value(`select quote_ident('reader_' || current_database())`)
	db.Exec(`create role ` + role)
	t.Cleanup(func() {
		for _, sql := range []string{`drop owned by `, `drop role `} {
			if _, err := db.Pool.Exec(context.WithoutCancel(ctx), sql+role); err != nil {
				t.Error(err)
			}
		}
	})
	db.Exec(`create view cinema.venue_overview with (security_barrier) as select name, seat_count from cinema.venue_view where seat_count > 0`)
	db.Exec(`create view cinema.countries as select o.name, v.country from cinema.venue_overview o join cinema.venue_view v using (name)`)
	db.Exec(`create index venue_by_country on cinema.venue_view (country) where seat_count > 10`)
	db.Exec(`comment on materialized view cinema.venue_view is 'Venues; with ''quotes'''`)
	db.Exec(`comment on column cinema.venue_view.name is 'How it is called'`)
	db.Exec(`comment on index cinema.venue_by_country is 'For the map'`)
	db.Exec(`grant usage on schema cinema to ` + role)
	db.Exec(`grant select on cinema.venue_view to ` + role + ` with grant option`)
	db.Exec(`grant select on cinema.countries to public`)
	db.Schedule("cinema.venue_view", "1 hour")
	before := db.Value(as)

	stop, done := make(chan struct{}), make(chan int)
	var longest time.Duration
	go func() {
		reads := 0
		defer func() { done <- reads }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			tx, err := db.Pool.Begin(ctx)
			if err == nil {
				_, err = tx.Exec(ctx, `set local lock_timeout = '1s'`)
			}
			var venues int
			began := time.Now()
			if err == nil {
				err = tx.QueryRow(ctx, `select count(*) from cinema.countries`).Scan(&venues)
			}
			longest = max(longest, time.Since(began))
			if err != nil || venues == 0 {
				t.Errorf("a reader saw %d venues, %v", venues, err)
			}
			if tx != nil {
				_ = tx.Rollback(ctx)
			}
			reads++
		}
	}()
	store := schedule.NewStore(db.Pool)
	view := schedule.ViewName{Schema: "cinema", Name: "venue_view"}
	convert := func(back bool) {
		t.Helper()
		conversion, err := store.PlanConversion(ctx, view, schedule.ConvertOptions{Back: back})
		if err == nil {
			err = store.Convert(ctx, conversion)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	kind := func(want string) {
		t.Helper()
		db.Check(want, `select concat_ws(' ', c.relkind, s.kind, s.merge_source, s.merge_key, s.next_run_at <= now())
			from mvsched.materialized_view_refresh_schedule s join pg_class c on c.oid = s.view_oid`)
	}
	convert(false)
	kind("r merge cinema.venue_view_source {id} t")
	convert(true)
	kind("m view t")
	close(stop)
	if <-done == 0 {
		t.Error("nobody read")
	}
	t.Logf("the longest read took %s", longest)
	if after := db.Value(as); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}
