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
		b.Exec(fmt.Sprintf(`delete from public.sales where random() < 0.1`))
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
