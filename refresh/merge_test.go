package refresh_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/mvsched/mvsched/schedule"
)

// merge makes public.sales_by_day a merge table of public.sales_by_day_source, with this window, "" for none.
func (b *bundle) merge(window string) {
	b.Helper()
	b.Exec(`create table public.sales (day date, country text, note text, amount numeric, primary key (day, country))`)
	b.Exec(`create view public.sales_by_day_source as select day, country, note, amount from public.sales`)
	b.Exec(`create table public.sales_by_day (day date, country text, note text, amount numeric, lower text generated always as (lower(country)) stored,
		primary key (country, day))`)
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule
		(materialized_view_name, kind, merge_source, merge_key, merge_window, refresh_interval)
		values ('public.sales_by_day', 'merge', 'public.sales_by_day_source', '{day,country}', nullif($1, ''), '1 hour')`, window)
}

// refreshMerge refreshes the merge table and returns the record.
func (b *bundle) refreshMerge() schedule.Execution {
	b.Helper()
	b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
	return b.runDue()["public.sales_by_day"]
}

// rowImages are the rows of a relation byte for byte, as one value.
func (b *bundle) rowImages(relation, where string) string {
	b.Helper()
	return b.Value(`select coalesce(string_agg(image, e'\n' order by image collate "C"), '') from (
		select concat_ws('|', day, country, coalesce(encode(textsend(note), 'hex'), 'null'), coalesce(encode(numeric_send(amount), 'hex'), 'null')) as image
		  from ` + relation + ` where ` + where + `) i`)
}

// sell does something random to the sales.
func (b *bundle) sell(r *rand.Rand) {
	b.Helper()
	day := func() string { return fmt.Sprintf("date '2026-01-01' + %d", r.IntN(20)) }
	country := func() string { return fmt.Sprintf("'%c'", 'a'+rune(r.IntN(5))) }
	note := func() string { return []string{"null", "''", "'x'", "'NULL'", "'é'"}[r.IntN(5)] }
	amount := func() string { return []string{"null", "1", "1.0", "1.00", "2"}[r.IntN(5)] }
	switch r.IntN(4) {
	case 0:
		b.Exec(fmt.Sprintf(`delete from public.sales where day = %s`, day()))
	case 1:
		b.Exec(fmt.Sprintf(`update public.sales set note = %s, amount = %s where country = %s`, note(), amount(), country()))
	case 2:
		b.Exec(`delete from public.sales where random() < 0.1`)
	default:
		for range 10 {
			b.Exec(fmt.Sprintf(`insert into public.sales values (%s, %s, %s, %s)
				on conflict (day, country) do update set note = excluded.note, amount = excluded.amount`,
				day(), country(), note(), amount()))
		}
	}
}

func TestMergeTableIsItsView(t *testing.T) {
	for name, window := range map[string]string{"all": "", "by_key": "day >= date '2026-01-11'", "by_value": "note = 'x' -- why not"} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.merge(window)
			seed := uint64(time.Now().UnixNano())
			r := rand.New(rand.NewPCG(seed, 0))
			inside := "true"
			if window != "" {
				inside = "coalesce((" + window + "\n), false)"
			}
			// What a windowed refresh leaves alone: what was outside of the window, and is not in the view's by now.
			const alone = ` and (day, country) not in (select day, country from public.sales_by_day_source where `
			for i := range 25 {
				for range r.IntN(4) {
					b.sell(r)
				}
				b.Exec(`drop table if exists public.before`)
				b.Exec(`create table public.before as select * from public.sales_by_day`)
				was := b.rowImages("public.before", "not "+inside+alone+inside+")")
				e := b.refreshMerge()
				if e.Status != schedule.Succeeded || *e.Method != schedule.MethodMerge {
					t.Fatalf("seed %d, round %d: %+v %s", seed, i, e, text(e.ErrorMessage))
				}
				if view, table := b.rowImages("public.sales_by_day_source", inside), b.rowImages("public.sales_by_day", inside); view != table {
					t.Fatalf("seed %d, round %d: the view has\n%s\nthe table\n%s", seed, i, view, table)
				}
				keys := strings.ReplaceAll(alone, "public.sales_by_day_source where ", "public.sales_by_day_source where "+inside+") and (day, country) not in (select day, country from public.before where ")
				if now := b.rowImages("public.sales_by_day", "not "+inside+keys+inside+")"); now != was {
					t.Fatalf("seed %d, round %d: outside the window there was\n%s\nnow there is\n%s", seed, i, was, now)
				}
				b.Check("0", `select count(*) from public.sales_by_day t join public.sales_by_day_source s using (day, country) join public.before b using (day, country)
					where b.note is not distinct from 'x' and (t.note, t.amount) is distinct from (s.note, s.amount) and $1 = 'by_value'`, name)
				written := b.Value(`select count(*) from (select * from public.sales_by_day except all select * from public.before) w`)
				if got := fmt.Sprint(*e.RowsInserted); got < written && len(got) <= len(written) {
					t.Fatalf("seed %d, round %d: %s rows inserted by the record, and %s new ones", seed, i, got, written)
				}
			}
			e := b.refreshMerge()
			if *e.RowsInserted != 0 || *e.RowsDeleted != 0 {
				t.Errorf("nothing has changed, and %d rows were inserted, %d deleted", *e.RowsInserted, *e.RowsDeleted)
			}
			b.Check("0", `select count(*) from public.sales_by_day where lower is distinct from lower(country)`)
		})
	}
}

// A reader who would have to wait for a lock for more than 50 ms gets an error.
func TestMergeTableReaders(t *testing.T) {
	b := setup(t)
	b.Exec(`create table public.base as select id, 0 as version from generate_series(1, 2000) id`)
	b.Exec(`create view public.source as select id, version from public.base where id % 7 <> version % 7`)
	b.Exec(`create table public.copy (id int primary key, version int)`)
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, kind, merge_source, merge_key, refresh_interval)
		values ('public.copy', 'merge', 'public.source', '{id}', '1 hour')`)

	stop, read := make(chan struct{}), make(chan int)
	go func() {
		reads := 0
		defer func() { read <- reads }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			tx, err := b.Pool.Begin(b.Context())
			if err != nil {
				b.Error(err)
				return
			}
			var versions, wrong int
			_, err = tx.Exec(b.Context(), `set local lock_timeout = '50ms'`)
			if err == nil {
				err = tx.QueryRow(b.Context(), `select count(distinct version), count(*) filter (where id % 7 = version % 7)
					+ abs(count(*) - (select count(*) from generate_series(1, 2000) id where id % 7 <> (select max(version) % 7 from public.copy)))
					from public.copy`).Scan(&versions, &wrong)
			}
			if err != nil || versions > 1 || wrong > 0 && versions > 0 {
				b.Errorf("a reader saw %d versions, %d wrong rows, %v", versions, wrong, err)
			}
			_ = tx.Rollback(b.Context())
			reads++
		}
	}()
	writing := make(chan struct{})
	go func() { // while it is refreshed, others write what it reads
		defer close(writing)
		for range 60 {
			b.Exec(`update public.base set version = version + 1`)
		}
	}()
	for range 20 {
		b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now()`)
		if e := b.runDue()["public.copy"]; e.Status != schedule.Succeeded {
			t.Errorf("%+v %s", e, text(e.ErrorMessage))
		}
	}
	<-writing
	close(stop)
	if reads := <-read; reads < 20 {
		t.Errorf("only %d reads", reads)
	}
}

func TestMergeTableUnchanged(t *testing.T) {
	b := setup(t)
	if !b.TellsChanges() {
		return
	}
	b.merge("")
	b.set("sales_by_day", "skip_unchanged = true")
	b.Exec(`create materialized view public.total as select sum(amount) from public.sales_by_day`)
	b.Exec(`insert into mvsched.materialized_view_refresh_schedule (materialized_view_name, after_parents) values ('public.total', true)`)
	b.Aside(`insert into public.sales values ('2026-01-01', 'a', 'x', 1)`)
	if e := b.runDue(); e["public.sales_by_day"].Status != schedule.Succeeded || e["public.total"].Status != schedule.Succeeded {
		t.Fatalf("%+v", e)
	}
	b.Check("1", `select sum from public.total`)

	fingerprint := func() string {
		return b.Value(`select coalesce(mvsched.fingerprint('public.sales_by_day'::regclass), 'unknown')`)
	}
	last := fingerprint()
	if last == "unknown" || last != fingerprint() {
		t.Errorf("nothing has changed: %s, then %s", last, fingerprint())
	}
	differs := func(what string) {
		t.Helper()
		now := fingerprint()
		if now == last || now == "unknown" {
			t.Errorf("%s, and the fingerprint is %s", what, now)
		}
		last = now
	}
	b.Aside(`update public.sales set amount = 2`)
	differs("what the view reads has changed")
	b.set("sales_by_day", "merge_window = 'true'")
	differs("the window has changed")
	b.Exec(`create or replace view public.sales_by_day_source as select day, country, note, amount + 1 as amount from public.sales`)
	differs("the view has changed")
	b.Exec(`create view public.other as select * from public.sales_by_day_source`)
	b.set("sales_by_day", "merge_source = 'public.other'")
	differs("it is another view")

	b.Exec(`update mvsched.materialized_view_refresh_schedule set next_run_at = now() where kind = 'merge'`)
	if e := b.runDue()["public.total"]; e.Status != schedule.Succeeded {
		t.Errorf("what reads the table: %+v", e)
	}
	b.Check("3", `select sum from public.total`)
}

func TestMergeTableIsFullAtTimes(t *testing.T) {
	b := setup(t)
	b.merge("day >= date '2026-01-02'")
	b.Exec(`insert into public.sales values ('2026-01-01', 'a', 'x', 1), ('2026-01-02', 'a', 'x', 1)`)
	how := func() string {
		e := b.refreshMerge()
		if e.Status != schedule.Succeeded {
			t.Fatalf("%+v %s", e, text(e.ErrorMessage))
		}
		return *e.MethodReason
	}
	if got := how(); got != schedule.BecauseWindow {
		t.Errorf("a first refresh is %s", got)
	}
	b.Check("1", `select count(*) from public.sales_by_day`)
	b.set("sales_by_day", "full_interval = '1 day', next_full_at = now()")
	if got := how(); got != schedule.BecauseWhole {
		t.Errorf("a full one is due, and it is %s", got)
	}
	b.Check("2", `select count(*) from public.sales_by_day`)
	b.Check("true", `select next_full_at between now() + interval '23 hours' and now() + interval '25 hours'
		from mvsched.materialized_view_refresh_schedule`)
	if got := how(); got != schedule.BecauseWindow {
		t.Errorf("after it comes one that is %s", got)
	}
}
